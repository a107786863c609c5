"""Policies side by side on a loss matrix: what each costs, and its share of the best schedule's gain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from replay.costs import Costs, Schedule, bill
from replay.governed import Governed
from replay.hindsight import best_schedule
from replay.losses import LossMatrix
from replay.policies import (
    Cadence,
    DriftTriggered,
    Never,
    PerformanceTriggered,
    Policy,
    random_schedules,
    schedule_of,
)

Floats = NDArray[np.float64]

CADENCES = (1, 2, 3, 6, 12)
GRID = (0.0003, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Prices of a training with its rollout, in nats a customer of one step: at 0.01 it costs as much as a loss
that is 0.01 nats larger for every customer of one step."""
TYPICAL = 0.01
"""The price of the summary."""
ROLLOUT_SHARE = 1 / 6
"""Of that price."""
RANDOM = 200
DRAWS = 200
LATE_STEPS = 2
"""A training answers a training of the best schedule if it is at most so many steps later."""


@dataclass(frozen=True)
class Row:
    """One policy at one price."""

    price: float
    policy: str
    schedule: Schedule
    cost: float
    """In nats a customer of one step, with the price of trainings and rollouts."""
    regret: float
    """The cost above that of the best schedule."""
    captured: float
    """Share of the best schedule's gain over never; NaN where never is best."""
    low: float
    high: float
    """The 95 % interval of `captured`, by resampled customers, for these schedules."""
    false: int
    """Trainings without which the costs would be lower."""
    missed: int
    """Trainings of the best schedule that no training answers."""
    alarms: int
    """Checks at which harm was reported."""


def costs_at(matrix: LossMatrix, price: float, deploy_steps: int = 1) -> Costs:
    """Prices in nats, for a training that costs `price` nats a customer of one step."""
    total = price * float(matrix.rows.mean())
    return Costs(1.0, total * (1 - ROLLOUT_SHARE), total * ROLLOUT_SHARE, deploy_steps)


def compare(
    matrix: LossMatrix,
    prices: Sequence[float] = GRID,
    governed: Callable[[Costs], Governed] = Governed,
    seed: int = 0,
) -> list[Row]:
    """A row for each price and policy: never, the cadences, drift, performance, ours and best."""
    rows = []
    draws = matrix.resampled_totals(DRAWS, seed)
    for price in prices:
        costs = costs_at(matrix, price)
        ours = governed(costs)
        policies: list[Policy] = [
            Never(),
            *map(Cadence, CADENCES),
            DriftTriggered(),
            PerformanceTriggered(),
            ours,
        ]
        schedules = {policy.name: schedule_of(policy, matrix, costs.deploy_steps) for policy in policies}
        schedules["best"] = best_schedule(matrix.total, costs)
        rows += [
            _row(matrix, draws, price, name, schedules, costs, len(ours.alarms) if name == ours.name else 0)
            for name in schedules
        ]
    return rows


def random_share(matrix: LossMatrix, schedule: Schedule, costs: Costs, seed: int) -> float:
    """The share of random schedules with as many trainings that cost more than this one."""
    ours = bill(matrix.total, schedule, costs).total
    others = random_schedules(len(schedule), len(matrix.moments), RANDOM, seed)
    return float(np.mean([bill(matrix.total, other, costs).total > ours for other in others]))


def best_cadence(rows: Sequence[Row], price: float) -> Row:
    """The cheapest fixed cadence at a price, never included."""
    fixed = [row for row in rows if row.price == price and row.policy.startswith(("every", "never"))]
    return min(fixed, key=lambda row: row.cost)


def of_policy(rows: Sequence[Row], policy: str, price: float) -> Row:
    """The row of a policy at a price."""
    return next(row for row in rows if row.policy == policy and row.price == price)


def _row(
    matrix: LossMatrix,
    draws: Floats,
    price: float,
    name: str,
    schedules: dict[str, Schedule],
    costs: Costs,
    alarms: int,
) -> Row:
    total, schedule, best = matrix.total, schedules[name], schedules["best"]
    never, ours, least = (bill(total, one, costs).total for one in ((), schedule, best))
    shares = [_share(*(bill(drawn, one, costs).total for one in ((), schedule, best))) for drawn in draws]
    known = [share for share in shares if np.isfinite(share)]
    low, high = np.quantile(known, (0.025, 0.975)) if best and known else (np.nan, np.nan)
    customers = float(matrix.rows.mean())
    return Row(
        price=price,
        policy=name,
        schedule=schedule,
        cost=ours / customers,
        regret=(ours - least) / customers,
        captured=_share(never, ours, least),
        low=float(low),
        high=float(high),
        false=sum(
            bill(total, [s for s in schedule if s != one], costs).total < ours for one in schedule
        ),
        missed=sum(not any(one <= s <= one + LATE_STEPS for s in schedule) for one in best),
        alarms=alarms,
    )  # fmt: skip


def _share(never: float, ours: float, best: float) -> float:
    gain = never - best
    return (never - ours) / gain if gain > 1e-9 * abs(never) else float("nan")

"""Rules that compare an error rate with a fixed bound at fixed intervals, each tuned as well as it can be.

A check every `interval` requests fails when its statistic is above the bound; so many failed checks, in all
(Flagger's `threshold`, Argo Rollouts' `failureLimit`) or in a row, roll back. Flagger-like rules use the
canary's own rate, Argo-like ones here its excess over stable's rate in the same interval. The bound is
the lowest that keeps the false alarms of a whole rollout at alpha, for every rate it is tuned to; interval
and failures are those with the smallest median of canary requests to a rollback, among all that catch 99 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.rollouts import stable_meanwhile
from rollout.config import Stage

Array = NDArray[np.float64]

UNIT = 25
"""Canary requests; intervals are multiples of it."""
INTERVALS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 28, 32, 36, 40, 48, 56, 64, 72, 80)
CLOCK = 250
"""Requests to both variants: the unit of an interval in minutes, as both tools have it."""
MINUTES = (2, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80)
FAILURES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Units:
    """What happened in each stretch of many rollouts. [rollouts, stretches]"""

    canary: Array
    canary_errors: Array
    stable: Array
    stable_errors: Array


@dataclass(frozen=True)
class Checks:
    """[rollouts, checks]"""

    statistic: Array
    done: Array
    """Canary requests until then."""


@dataclass(frozen=True)
class Tuned:
    """A rule, and how it did on the rollouts that tuned it."""

    size: int
    """Of the interval, in units."""
    failures: int
    in_a_row: bool
    bound: float
    median: float
    caught: float


def simulated(
    stages: Sequence[Stage], rates: tuple[float, float], by_clock: bool, rollouts: int, seed: int
) -> Units:
    """`rates`: of errors, on the canary and on stable."""
    random = np.random.default_rng(seed)
    stretches = [one for stage in stages for one in _traffic(stage, by_clock, rollouts, random)]
    canary, stable = (np.stack(of, axis=1) for of in zip(*stretches, strict=True))
    errors = [
        random.binomial(requests.astype(np.int64), rate).astype(np.float64)
        for requests, rate in zip((canary, stable), rates, strict=True)
    ]
    return Units(canary, errors[0], stable, errors[1])


def _traffic(
    stage: Stage, by_clock: bool, rollouts: int, random: np.random.Generator
) -> list[tuple[Array, Array]]:
    """Requests to canary and stable in each stretch of a stage."""
    if not by_clock:
        requests = np.full(rollouts, float(UNIT))
        return [
            (requests, stable_meanwhile(stage, UNIT, rollouts, random))
            for _ in range(stage.min_requests // UNIT)
        ]
    share = 1.0 if stage.mirror else stage.weight / 100
    drawn = [
        random.binomial(CLOCK, share, rollouts).astype(np.float64)
        for _ in range(max(round(stage.min_requests / share / CLOCK), 1))
    ]
    return [(canary, canary if stage.mirror else CLOCK - canary) for canary in drawn]


def checked(units: Units, size: int, against_stable: bool) -> Checks:
    """A check after every `size` stretches. One that saw no request of the canary passes."""
    number = units.canary.shape[1] // size

    def grouped(values: Array) -> Array:
        return values[:, : number * size].reshape(len(values), number, size).sum(axis=2)

    canary, canary_errors = grouped(units.canary), grouped(units.canary_errors)
    statistic = canary_errors / np.maximum(canary, 1)
    if against_stable:
        stable, errors = grouped(units.stable), grouped(units.stable_errors)
        # a canary at 100 % has no stable variant beside it; the comparison is with all earlier requests
        before = errors.cumsum(axis=1) / np.maximum(stable.cumsum(axis=1), 1)
        statistic = statistic - np.where(stable > 0, errors / np.maximum(stable, 1), before)
    return Checks(np.where(canary > 0, statistic, -np.inf), canary.cumsum(axis=1))


def tuned(
    null: Sequence[Units], harm: Units, sizes: Sequence[int], against_stable: bool, alpha: float
) -> Tuned:
    """The quickest of all rules that keep `alpha` on each of `null` and catch 99 % of `harm`; if none does,
    the one that catches most."""
    found = []
    for size in sizes:
        harmless = [checked(units, size, against_stable) for units in null]
        harmed = checked(harm, size, against_stable)
        for failures in FAILURES:
            for in_a_row in (False, True):
                if failures > harmed.statistic.shape[1] or (in_a_row and failures == 1):
                    continue
                bound = max(bound_of(one.statistic, failures, in_a_row, alpha) for one in harmless)
                took = stopped(harmed, failures, in_a_row, bound)
                rule = Tuned(size, failures, in_a_row, bound, _median(took), _caught(took))
                found.append(rule)
    good = [rule for rule in found if rule.caught >= 0.99]
    return min(good, key=lambda rule: rule.median) if good else max(found, key=lambda rule: rule.caught)


def stopped(checks: Checks, failures: int, in_a_row: bool, bound: float) -> Array:
    """[rollouts]: canary requests until the rollback; inf: none."""
    failed = checks.statistic > bound
    count = failed.cumsum(axis=1)
    if in_a_row:
        passed_at = np.maximum.accumulate(np.where(failed, 0, count), axis=1)
        count = count - passed_at
    stop = count >= failures
    at = stop.argmax(axis=1)
    return np.where(stop.any(axis=1), np.take_along_axis(checks.done, at[:, None], axis=1)[:, 0], np.inf)


def bound_of(statistic: Array, failures: int, in_a_row: bool, alpha: float) -> float:
    """The lowest that at most `alpha` of these rollouts fail."""
    if in_a_row:
        runs = np.lib.stride_tricks.sliding_window_view(statistic, failures, axis=1)
        worst = runs.min(axis=2).max(axis=1)
    else:
        worst = -np.partition(-statistic, failures - 1, axis=1)[:, failures - 1]
    return float(np.sort(worst)[::-1][int(alpha * len(worst))])


def _median(took: Array) -> float:
    return float(np.median(took))


def _caught(took: Array) -> float:
    return float(np.isfinite(took).mean())

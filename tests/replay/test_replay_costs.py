"""Costs of schedules and the best one in hindsight, against hand-computed bills and brute force."""

from datetime import UTC, datetime, timedelta
from itertools import combinations

import numpy as np
import pytest

from core.errors import ReplayError
from replay.costs import Bill, Costs, bill, in_service
from replay.hindsight import best_schedule
from replay.losses import LossMatrix, stacked
from replay.past import Past
from replay.policies import (
    Cadence,
    DriftTriggered,
    Fixed,
    Never,
    PerformanceTriggered,
    random_schedules,
    schedule_of,
)

FIRST = datetime(2020, 1, 1, tzinfo=UTC)


def matrix(means: np.ndarray, customers: int = 4, lag: int = 2, drift: float = 0.1) -> LossMatrix:
    """Every customer has the mean loss of its cell."""
    steps = len(means)
    rows = [[np.full(customers, means[s, t], np.float32) for t in range(s, steps)] for s in range(steps)]
    moments = tuple(FIRST + timedelta(days=30 * step) for step in range(steps))
    return LossMatrix(moments, stacked(rows), np.full((steps, steps), drift), lag)


def test_bill_equals_one_computed_by_hand() -> None:
    # 4 customers; model 0 serves moments 0, 1 and 2, the model trained at 1 with a delay of 2 serves 3
    means = np.array([[1.0, 2.0, 3.0, 4.0], [0, 0.5, 0.25, 0.75], [0, 0, 0.5, 0.5], [0, 0, 0, 0.5]])
    costs = Costs(value=10, training=3, rollout=2, deploy_steps=2)
    # 4 customers * (1 + 2 + 3 + 0.75) = 27 nats, at 10 each, and one training with its rollout
    assert bill(matrix(means).total, [1], costs) == Bill(27.0, 1, 1, 275.0)
    assert bill(matrix(means).total, [], costs) == Bill(40.0, 0, 0, 400.0)


def test_model_serves_from_its_deployment_to_that_of_the_next() -> None:
    assert in_service([1, 3], 6, 1).tolist() == [0, 0, 1, 1, 3, 3]
    assert in_service([1, 3], 6, 0).tolist() == [0, 1, 1, 3, 3, 3]
    assert in_service([5], 6, 1).tolist() == [0] * 6
    with pytest.raises(ReplayError, match="moment 6 is not one of 1 to 5"):
        in_service([6], 6, 1)


@pytest.mark.parametrize("deploy_steps", [0, 1, 2, 3])
@pytest.mark.parametrize("price", [0.0, 0.3, 2.0, 50.0])
def test_best_schedule_is_that_of_brute_force(deploy_steps: int, price: float) -> None:
    draws = np.random.default_rng(int(10 * price) + deploy_steps)
    for steps in (1, 2, 5, 8):
        total = matrix(draws.gamma(2.0, 1.0, (steps, steps))).total
        costs = Costs(1.3, price, price / 2, deploy_steps)
        every = (c for n in range(steps) for c in combinations(range(1, steps), n))
        cheapest = min(bill(total, schedule, costs).total for schedule in every)
        assert bill(total, best_schedule(total, costs), costs).total == pytest.approx(cheapest, abs=1e-9)


def test_free_trainings_that_always_help_are_all_made_and_dear_ones_never() -> None:
    total = matrix(np.array([[1.0 + t - s for t in range(6)] for s in range(6)])).total
    assert best_schedule(total, Costs(1, 0, 0)) == (1, 2, 3, 4)  # the model of moment 5 would never serve
    assert best_schedule(total, Costs(1, 1e6, 0)) == ()


def test_best_schedule_takes_one_training_for_one_change() -> None:
    means = np.full((8, 8), 0.3)
    means[:4, 4:] = 0.6  # models from before moment 4 lose more from 4 on
    assert best_schedule(matrix(means).total, Costs(1, 0.5, 0)) == (4,)


def test_policies_train_when_their_rule_says_so() -> None:
    means = np.full((8, 8), 0.3)
    means[:4, 4:] = 0.6
    known = matrix(means, drift=0.1)
    assert schedule_of(Never(), known, 1) == ()
    assert schedule_of(Cadence(3), known, 1) == (3, 6)
    assert schedule_of(Fixed((2, 5)), known, 1) == (2, 5)
    assert schedule_of(DriftTriggered(), known, 1) == ()
    assert schedule_of(DriftTriggered(), matrix(means, drift=0.3), 1) == tuple(range(1, 8))
    # the loss of moment 4 is known two steps later; the model of moment 6 has no known score before the end
    assert schedule_of(PerformanceTriggered(), known, 1) == (6,)


def test_policy_that_reads_an_outcome_before_it_is_known_is_refused() -> None:
    past = Past(matrix(np.ones((6, 6))), 3, (), np.zeros(4, np.int64))
    assert list(past.matured) == [0, 1]
    assert past.loss(0, 1) == 1.0
    for trained, at in ((0, 2), (2, 1)):
        with pytest.raises(ReplayError, match="not known yet"):
            past.loss(trained, at)


def test_corrupt_losses_after_a_moment_change_no_decision_before_it() -> None:
    draws = np.random.default_rng(3)
    means = draws.gamma(2.0, 0.3, (12, 12))
    policies = (PerformanceTriggered(0.0), DriftTriggered(0.05), Cadence(2))
    for policy in policies:
        clean = schedule_of(policy, matrix(means), 1)
        for t in range(2, 12):
            corrupt = means.copy()
            corrupt[:, t - 1 :] = 9.0  # at moment t the outcomes of t - 2 are the newest that are known
            changed = schedule_of(policy, matrix(corrupt), 1)
            assert [s for s in changed if s <= t] == [s for s in clean if s <= t]


def test_random_schedules_have_the_number_of_trainings_and_repeat_by_seed() -> None:
    schedules = list(random_schedules(4, 20, 50, seed=1))
    assert all(len(set(schedule)) == 4 and min(schedule) >= 1 for schedule in schedules)
    assert len(set(schedules)) > 40
    assert schedules == list(random_schedules(4, 20, 50, seed=1))


def test_resampled_totals_keep_the_rows_of_a_customer_together() -> None:
    losses = np.zeros((2, 2, 50), np.float32)
    losses[:] = np.arange(50) % 2  # every other customer loses 1 nat at each moment
    known = LossMatrix((FIRST, FIRST + timedelta(days=30)), losses, np.zeros((2, 2)), 1)
    totals = known.resampled_totals(200, seed=0)
    assert np.array_equal(totals[:, 0, 0], totals[:, 1, 1])  # the same customers are drawn at both moments
    assert np.isnan(totals[:, 1, 0]).all()
    assert totals[:, 0, 0].std() == pytest.approx(np.sqrt(50) / 2, rel=0.2)  # of a binomial


def test_saved_matrix_is_read_back_and_a_damaged_one_is_refused(tmp_path) -> None:
    known, file = matrix(np.ones((3, 3))), tmp_path / "m.npz"
    known.save(file)
    read = LossMatrix.load(file)
    assert read.moments == known.moments and read.label_lag == 2
    assert np.array_equal(read.losses, known.losses, equal_nan=True)
    file.write_bytes(b"damaged")
    with pytest.raises(ReplayError, match="not a loss matrix"):
        LossMatrix.load(file)

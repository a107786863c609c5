"""A decision is graded by two models on the labels that matured after it."""

import numpy as np
import pandas as pd
import pytest

from retraining.decision import Action
from retraining.grading import Compared, grade, profit
from support.retraining_situations import day
from training.config import DecisionConfig
from training.evaluate.bootstrap import Resampling

MONEY = DecisionConfig(customer_value=100.0, offer_cost=10.0, contact_cost=1.0, acceptance_rate=0.3)
RATE = 0.3
ROWS = 4000


def compared(good_is_trained: bool) -> Compared:
    """A model that sees the customers' risk, and one that predicts the rate for all."""
    draws = np.random.default_rng(3)
    risk = draws.beta(1.0, 2.3, ROWS)
    rows = pd.DataFrame({"user_id": np.arange(ROWS) // 2, "churned": (draws.random(ROWS) < risk).astype(int)})
    constant = np.full(ROWS, RATE)
    trained, without = (risk, constant) if good_is_trained else (constant, risk)
    return Compared(rows, without, trained, "the candidate abc")


@pytest.mark.parametrize(
    ("action", "good_is_trained", "expected"),
    [
        (Action.YES, True, "right"),
        (Action.YES, False, "wrong"),
        (Action.NO, True, "wrong"),
        (Action.NO, False, "right"),
        (Action.VETOED, True, "wrong"),
    ],
)
def test_the_grade_follows_from_the_labels(action: Action, good_is_trained: bool, expected: str) -> None:
    found = grade(7, action, compared(good_is_trained), MONEY, day(200), Resampling(200))
    assert (found.decision, found.grade, found.at) == (7, expected, day(200))


def test_the_cost_is_the_difference_of_the_losses_in_nats_and_money() -> None:
    """Against the formulas written out for each row."""
    data = compared(good_is_trained=True)
    found = grade(1, Action.NO, data, MONEY, day(200), Resampling(200))
    churned = data.rows["churned"].to_numpy()

    def loss(p: np.ndarray) -> float:
        return float(-np.where(churned == 1, np.log(p), np.log(1 - p)).sum())

    def money(p: np.ndarray) -> float:
        offered = p * 0.3 * 90 - (1 - p) * 10 - 1 > 0
        return float(np.where(churned == 1, 0.3 * 90 - 1, -11)[offered].sum())

    assert found.numbers["cost_nats_total"] == pytest.approx(loss(data.without) - loss(data.trained))
    assert found.numbers["cost_money_total"] == pytest.approx(money(data.trained) - money(data.without))
    assert profit(data.rows, data.trained, MONEY) == pytest.approx(money(data.trained))
    assert found.numbers["customers"] == ROWS / 2
    yes = grade(1, Action.YES, data, MONEY, day(200), Resampling(200))
    assert yes.numbers["cost_nats"] == -found.numbers["cost_nats"]


def test_a_training_that_gains_nothing_that_can_be_measured_was_not_worth_it() -> None:
    data = compared(good_is_trained=True)
    same = Compared(data.rows, data.without, data.without.copy(), "the candidate abc")
    assert grade(1, Action.NO, same, MONEY, day(200), Resampling(200)).grade == "right"
    assert grade(1, Action.YES, same, MONEY, day(200), Resampling(200)).grade == "wrong"

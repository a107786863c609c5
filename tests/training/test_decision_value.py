import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq

from data.errors import ConfigError
from data.workspace import Workspace
from training.config import DecisionConfig
from training.decision_value import acting_threshold, break_even, expected_profit, profit_curve, ranking

OFFERS = (
    DecisionConfig(),
    DecisionConfig(customer_value=40, offer_cost=5, contact_cost=0, acceptance_rate=0.5),
    DecisionConfig(customer_value=500, offer_cost=50, contact_cost=2, acceptance_rate=0.15),
)


@pytest.mark.parametrize("decision", OFFERS)
def test_the_threshold_is_where_the_expected_profit_crosses_zero(decision: DecisionConfig) -> None:
    found = brentq(lambda p: float(expected_profit(p, decision)), 0, 1)
    assert break_even(decision) == pytest.approx(found, abs=1e-12)
    assert acting_threshold(decision, 0.5) == break_even(decision)


@pytest.mark.parametrize("decision", OFFERS)
def test_it_is_the_empirical_optimum_of_calibrated_scores(decision: DecisionConfig) -> None:
    """The best cut on a million outcomes drawn from the scores themselves."""
    draw = np.random.default_rng(0)
    score = draw.beta(2, 3, 1_000_000)
    curve = profit_curve(draw.random(len(score)) < score, score, decision)
    best = np.sort(score)[::-1][curve.best - 1]

    assert best == pytest.approx(break_even(decision), abs=0.02)
    assert curve.reached > 0.999


def test_the_profit_of_a_list_is_counted_by_hand() -> None:
    decision = DecisionConfig(customer_value=100, offer_cost=10, contact_cost=1, acceptance_rate=0.5)
    curve = profit_curve([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.01], decision)

    # a churner brings .5 * (100 - 10) - 1, whoever stays takes the present: -10 - 1
    assert (curve.profit * 4).tolist() == [0, 44, 33, 77, 66]
    assert (curve.chosen, curve.best) == (3, 3)
    assert curve.reached == 1.0


def test_worth_can_differ_from_customer_to_customer() -> None:
    decision = DecisionConfig()
    score, value = np.array([0.9, 0.5, 0.6]), np.array([20.0, 1000.0, 100.0])

    assert expected_profit(score, decision, value) == pytest.approx(
        [0.9 * 3 - 0.1 * 10 - 1, 0.5 * 297 - 5 - 1, 0.6 * 27 - 4 - 1]
    )
    assert ranking(score, decision, value).tolist() == [1, 2, 0]
    assert ranking(score, decision).tolist() == [0, 2, 1]


def test_an_offer_that_never_pays_is_no_threshold() -> None:
    never = DecisionConfig(customer_value=10, offer_cost=9, acceptance_rate=0.1)
    with pytest.raises(ConfigError, match=r"decision: .* is no threshold; correct decision\.customer_value"):
        acting_threshold(never, 0.5)
    fixed = never.model_copy(update={"threshold": "training"})
    assert acting_threshold(fixed, 0.4) == 0.4
    curve = profit_curve([1, 0, 1], [0.9, 0.1, 0.8], never)
    assert curve.chosen == 0 and curve.reached == 1.0


def test_a_real_model_s_threshold_loses_little_against_hindsight(trained: Workspace) -> None:
    scores = pd.read_parquet(trained.training / "test_scores.parquet")
    decision = DecisionConfig(customer_value=100, offer_cost=30, contact_cost=1, acceptance_rate=0.3)
    curve = profit_curve(scores["churned"], scores["score"], decision)

    assert 0.5 < break_even(decision) < 1
    assert curve.reached > 0.97
    assert curve.profit[curve.chosen] >= curve.profit[-1]

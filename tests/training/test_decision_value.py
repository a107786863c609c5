from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq

from churn.settings import load_settings
from core.errors import ConfigError
from core.workspace import Workspace
from training.config import DecisionConfig, ValueColumn
from training.decision_value import (
    acting_threshold,
    break_even,
    customer_values,
    expected_profit,
    profit_curve,
    ranking,
    values_of_scores,
)

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

    # a churner brings .5 * (100 - 10) - 1, a customer who stays takes the present: -10 - 1
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


def test_a_column_of_the_features_is_each_customer_s_worth() -> None:
    """Closed form: at one probability p for all, an offer pays from a worth of
    ((1 - p) offer + contact) / (p taken) + offer."""
    p, offer, contact, taken = 0.4, 10.0, 1.0, 0.5
    decision = DecisionConfig(
        customer_value=ValueColumn(column="spend", default=30),
        offer_cost=offer, contact_cost=contact, acceptance_rate=taken,
    )  # fmt: skip
    rows = pd.DataFrame({"spend": [200.0, 44.9, 45.1, None, 1000.0]})
    pays_from = ((1 - p) * offer + contact) / (p * taken) + offer
    values = customer_values(rows, decision)

    assert values is not None and values.tolist() == [200, 44.9, 45.1, 30, 1000]
    assert pays_from == pytest.approx(45)
    assert (expected_profit(np.full(5, p), decision, values) > 0).tolist() == list(values > pays_from)
    assert ranking(np.full(5, p), decision, values).tolist() == [4, 0, 2, 1, 3]
    curve = profit_curve(np.ones(5), np.full(5, p), decision, values)
    assert curve.chosen == 3
    profit = sum(taken * (v - offer) - contact for v in (1000, 200, 45.1))
    assert curve.profit[curve.chosen] * 5 == pytest.approx(profit)
    assert break_even(decision) == break_even(DecisionConfig(
        customer_value=30, offer_cost=offer, contact_cost=contact, acceptance_rate=taken))  # fmt: skip
    assert customer_values(rows, DecisionConfig()) is None


def test_the_test_scores_find_their_customers_worth(
    trained: Workspace, rows: pd.DataFrame, tmp_path: Path
) -> None:
    decision = DecisionConfig(customer_value=ValueColumn(column="total_spend", default=1))
    rows.to_parquet(tmp_path / "training-set.parquet", index=False)
    scores = pd.read_parquet(trained.training / "test_scores.parquet")
    values = values_of_scores(scores, tmp_path / "training-set.parquet", decision)
    known = rows.set_index(["user_id", "event_timestamp"])["total_spend"]

    assert values is not None
    wanted = known.loc[list(zip(scores["user_id"], scores["event_timestamp"], strict=True))]
    assert values.tolist() == wanted.tolist()
    own = profit_curve(scores["churned"], scores["score"], decision, values)
    everyone_alike = ranking(scores["score"], decision)
    realised = expected_profit(scores["churned"].to_numpy(), decision, values)[everyone_alike]
    assert own.profit[own.chosen] > 1.5 * np.cumsum(realised)[own.chosen - 1] / len(scores)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{column: nope, default: 10}", r"decision\.customer_value\.column: nope is not a numeric feature"),
        ("{column: total_spend}", r"decision\.customer_value\.default: missing"),
        ("{colum: total_spend, default: 1}", r"decision\.customer_value"),
        ("-3", r"decision\.customer_value: Input should be greater than 0, not -3"),
    ],
)
def test_a_wrong_worth_is_named(value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(overrides=[f"decision.customer_value={value}"])
    assert "\n" not in str(caught.value)


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

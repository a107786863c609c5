"""The value of each customer where the config gives none."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from churn.settings import load_settings
from features.spec import Feature, FeaturesConfig
from training.config import DecisionConfig, ValueColumn
from training.decision_value import customer_values, expected_profit, ranking
from training.value_at_stake import value_at_stake

OPEN = DecisionConfig(customer_value=None)


def spec(horizon: int, **sql: str) -> FeaturesConfig:
    features = [Feature(name=name, dtype="float64", sql=text) for name, text in sql.items()]
    return FeaturesConfig(horizon_days=horizon, features=tuple(features))


@pytest.mark.parametrize(
    ("horizon", "column"), [(90, "spend_180d"), (60, "spend_90d"), (30, "spend_30d"), (365, "spend_180d")]
)
def test_a_log_is_worth_its_recent_spending(horizon: int, column: str) -> None:
    settings = load_settings(overrides=[f"features.horizon_days={horizon}"])

    assert settings.decision.customer_value == ValueColumn(column=column, default=100)


def test_the_column_is_found_by_its_sql_under_any_name() -> None:
    found = value_at_stake(
        OPEN,
        spec(
            90,
            umsatz="SUM( amount ) FILTER (WHERE age_days <= 120)",
            long="sum(amount) filter (age_days <= 400)",
            orders="count(*) filter (age_days <= 150)",
        ),
        "transactions",
    )
    assert found.customer_value == ValueColumn(column="umsatz", default=100)


def test_without_such_a_feature_and_for_a_table_all_are_worth_the_same() -> None:
    recent = spec(90, spend="sum(amount) filter (age_days <= 90)")
    assert value_at_stake(OPEN, spec(90, n="count(*)"), "transactions").customer_value == 100
    assert value_at_stake(OPEN, recent, "labelled").customer_value == 100


def test_given_values_override_the_rule() -> None:
    assert load_settings(overrides=["decision.customer_value=40"]).decision.customer_value == 40


def test_who_has_bought_nothing_for_two_horizons_is_not_on_the_list() -> None:
    """A customer who is certainly gone was first when everybody was worth the same."""
    decision = load_settings().decision
    today = datetime(2024, 7, 1, tzinfo=UTC)
    customers = pd.DataFrame(
        {
            "user_id": ["long gone", "at risk", "loyal"],
            "last": [today - timedelta(days=400), today - timedelta(days=70), today - timedelta(days=5)],
            "spend_180d": [0.0, 600.0, 600.0],
        }
    )
    score = np.array([0.99, 0.55, 0.02])
    values = customer_values(customers, decision)

    assert ranking(score, decision, values)[0] == 1
    assert ranking(score, decision)[0] == 0
    assert (expected_profit(score, decision, values) > 0).tolist() == [False, True, False]

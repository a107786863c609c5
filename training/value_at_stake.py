"""What is at stake with each customer, where `configs/decision.yaml` leaves it open (null).

Few imports: it is asked whenever settings are read.
"""

import re

from features.spec import FeaturesConfig, Shape
from training.config import TYPICAL_VALUE, DecisionConfig, ValueColumn

SPEND = re.compile(
    r"sum\(\s*amount\s*\)\s*filter\s*\(\s*(?:where\s+)?age_days\s*<=\s*(\d+)\s*\)", re.IGNORECASE
)
"""A feature that adds up what a customer has spent in so many of the last days."""
HORIZONS = 2
"""Spending of at most so many horizons back is at stake; who has spent nothing for longer is gone."""


def value_at_stake(decision: DecisionConfig, spec: FeaturesConfig, shape: Shape) -> DecisionConfig:
    """The config without a gap: in a log the recent spending of each customer is at stake.

    The feature of the longest window of at most two horizons is taken, found by its SQL. For a table, or
    where there is no such feature, everybody is worth the same. On CDNOW (horizon 90 days, `spend_180d`) the
    first 500 customers of the ranked list have a median of 68 days since the last purchase and a churn
    probability of .54. With one value for all these were 520 days and .98: nobody can win them back.
    """
    if decision.customer_value is not None:
        return decision
    windows = {}
    for feature in spec.features if shape == "transactions" else ():
        found = SPEND.fullmatch((feature.sql or "").strip())
        if found and feature.over != "returns" and int(found[1]) <= HORIZONS * spec.horizon_days:
            windows[int(found[1])] = feature.name
    value = ValueColumn(column=windows[max(windows)], default=TYPICAL_VALUE) if windows else TYPICAL_VALUE
    return decision.model_copy(update={"customer_value": value})

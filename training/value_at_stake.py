"""The value of each customer where `customer_value` in `configs/decision.yaml` is null.

It has few imports, since it runs whenever settings are read.
"""

import re

from features.spec import FeaturesConfig, Shape
from training.config import TYPICAL_VALUE, DecisionConfig, ValueColumn

SPEND = re.compile(
    r"sum\(\s*amount\s*\)\s*filter\s*\(\s*(?:where\s+)?age_days\s*<=\s*(\d+)\s*\)", re.IGNORECASE
)
"""SQL of a feature that sums a customer's spending over the last N days; the group is N."""
HORIZONS = 2
"""Spending counts over at most this many horizons; a customer without any in that time is taken as lost."""


def value_at_stake(decision: DecisionConfig, spec: FeaturesConfig, shape: Shape) -> DecisionConfig:
    """The config with `customer_value` filled in: for a log the recent spending of each customer.

    The feature with the longest window of at most two horizons is taken, recognised by its SQL. For a table,
    or without such a feature, all customers have the same value. On CDNOW (horizon 90 days, `spend_180d`) the
    first 500 customers of the ranked list have a median of 68 days since the last purchase and a churn
    probability of .54. With one value for all these were 520 days and .98, customers who cannot be won back.
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

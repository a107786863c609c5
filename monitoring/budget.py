"""The error budget of pages: `monitoring.alpha` is shared by all tests that can page, and by nothing else.

With a probability of at most alpha a whole history of checks without a change has any page (union bound over
TESTS and over the features or segments of each). Evidence of each test is that of a whole history
(monitoring/change.py), and of all model versions that served in it. Checks of facts need no error rate: what
is missing, constant, too old, or different from the same vector derived again is so in the data themselves.
"""

import math

TESTS = (
    # each customer's features from one snapshot to the next (monitoring/checks/transitions.py)
    *("newly_null", "newly_default", "larger", "smaller", "decreased", "unchanged"),
    # rows that arrived (monitoring/checks/arrivals.py)
    *("more", "fewer", "amounts_larger", "amounts_smaller", "duplicates", "hours"),
    # the prediction log (monitoring/checks/served.py)
    *("served_stale", "served_unknown", "served_fewer"),
    # shares of missing values against training rows and season (monitoring/checks/distributions.py)
    "nulls",
    # harm, on early and on matured labels (monitoring/performance/avoidable.py)
    *("early_avoidable_loss", "late_avoidable_loss"),
)
"""Each has an equal share of alpha."""

FACTS = (
    *(
        "column_missing",
        "column_empty",
        "column_constant",
        "past_rows",
        "past_customers",
        "stale",
        "log_dropped",
    ),
    *("skew_*", "snapshot_*", "late_rows"),
)
"""Checks of facts that can page."""

SHARES = {test: 1 / len(TESTS) for test in TESTS}
"""Test -> its share of alpha."""


def level(test: str, subjects: int, alpha: float) -> float:
    """Log evidence at which `test` raises an alarm, if it is made for each of `subjects`.

    Raises KeyError for a test that has no share.
    """
    return math.log(max(subjects, 1) / (SHARES[test] * alpha))

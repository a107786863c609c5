"""Training-serving skew: feature vectors that differ from the same vectors derived again from the records.

Equal code, equal records and an equal moment give equal vectors, so one customer with a difference is a fact
and not an estimate. The cause is named from how the values differ.
"""

from typing import Any

import pandas as pd

from monitoring.config import MonitoringConfig
from monitoring.findings import Cause, Checked, Finding, Measurement, Severity

MOST = 0.8
"""Share of the differing customers who show a pattern, from which on it is named as the cause."""

TIGHT = 1.05
"""Largest quotient of the ratios at the quartiles for one factor between the two values."""

NO_VECTOR = "user_id"
"""The subject of customers for whom no vector can be derived."""

NOT_STORED = "customers"
"""The subject of eligible customers of the records who are not in the newest snapshot."""

REMEDIES = {
    "missing": "these customers are in the records and eligible: run `churn features build` again",
    "default": "the server filled in a default or null: check the online store and the feature view",
    "stale": "the values are those of the snapshot before: run `churn features materialize`",
    "unit": "the values differ by one factor: another unit on one side",
    "unknown_id": "these customers are not in the records: another masking key or another environment",
    "late_rows": "the server and the snapshot agree, and the records changed later: rows arrived late or were"
    " corrected; run `churn features build`",
    "other": "compare the feature's definition in the model with `churn features show`",
}


def check(skew: pd.DataFrame, config: MonitoringConfig) -> Checked:
    """Findings of cause skew.

    `skew` has a row for each feature and `source` (`served` for the prediction log, `stored` for the newest
    snapshot): `feature`, `compared` and `customers` (compared, and with a difference), and of the customers
    with a difference `defaults`, `stale` and `as_stored`, and the quartiles `ratio_low`, `ratio` and
    `ratio_high` of the value divided by the derived one.
    """
    findings: list[Finding] = []
    measured: list[Measurement] = []
    for row in skew.to_dict("records"):
        compared, customers = int(row["compared"]), int(row["customers"])
        subject = str(row["feature"])
        share = customers / compared if compared else float("nan")
        measured.append(Measurement(f"{row['source']}_skew_share", share, compared, subject))
        cause = cause_of(row)
        # rows that arrive late change few customers in any log; the server is the other way round: it has to
        # be equal for all
        exact = row["source"] == "served" and cause != "late_rows"
        least = max(0 if exact else config.arrivals.vanished * compared, config.skew.customers)
        if not compared or customers < least:
            continue
        numbers = {name: float(row[name]) for name in ("customers", "compared", "ratio", "defaults", "stale")}
        where = "served" if row["source"] == "served" else "stored in the newest snapshot"
        text = (
            f"{subject}: what is {where} differs from the records for {customers:,} of {compared:,} customers"
            f" ({share:.2%}), cause {cause}; {REMEDIES[cause]}"
        )
        check_name = f"skew_{cause}" if row["source"] == "served" else f"snapshot_{cause}"
        kind = Cause.CORRUPTION if cause == "late_rows" else Cause.SKEW
        findings.append(Finding(check_name, subject, kind, Severity.PAGE, text, numbers))
    return Checked(measured, findings)


def cause_of(row: dict[Any, Any]) -> str:
    """The pattern of the differences of one feature; a key of REMEDIES."""
    customers = max(int(row["customers"]), 1)
    if row["feature"] in (NO_VECTOR, NOT_STORED):
        return "unknown_id" if row["feature"] == NO_VECTOR else "missing"
    if row["as_stored"] >= MOST * customers:
        return "late_rows"
    if row["defaults"] >= MOST * customers:
        return "default"
    if row["stale"] >= MOST * customers:
        return "stale"
    # factors of 1 are no unit: the values differ in another way
    low, middle, high = row["ratio_low"], row["ratio"], row["ratio_high"]
    if low > 0 and high / low < TIGHT and not 1 / TIGHT < middle < TIGHT:
        return "unit"
    return "other"

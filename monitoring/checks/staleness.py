"""The ages of records, snapshots and predictions at the end of the window."""

from datetime import datetime

import pandas as pd

from monitoring.config import MonitoringConfig
from monitoring.findings import Cause, Checked, Finding, Measurement, Severity

REMEDIES = {
    "records": "run `churn ingest`, and check the delivery of the source",
    "snapshots": "run `churn features build` and `churn features materialize`",
    "predictions": "check that the server runs and writes its log (`churn serve`)",
}


def check(ages: pd.DataFrame, at: datetime, ttl_days: float, config: MonitoringConfig) -> Checked:
    """Findings of cause staleness. `ages` has a row for each source with `source`, `newest` (UTC; NaT if it
    is empty) and `rows`; a source without a row is not in use."""
    limits = {
        "records": config.staleness.records_days,
        "snapshots": config.staleness.snapshots_days or ttl_days,
        "predictions": config.staleness.predictions_days,
    }
    findings: list[Finding] = []
    measured: list[Measurement] = []
    for row in ages.to_dict("records"):
        source = str(row["source"])
        age = (pd.Timestamp(at) - row["newest"]) / pd.Timedelta(days=1)  # NaN for an empty source
        measured.append(Measurement("age_days", float(age), int(row["rows"]), source))
        limit = limits[source]
        if not age <= limit:
            what = "there are none" if pd.isna(age) else f"the newest are {age:.1f} days old"
            findings.append(
                Finding(
                    "stale",
                    source,
                    Cause.STALENESS,
                    Severity.PAGE,
                    f"{source}: {what}, more than {limit:g} days; {REMEDIES[source]}",
                    {"age_days": float(age), "limit_days": float(limit)},
                )
            )
    return Checked(measured, findings)

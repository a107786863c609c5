"""The past must not change: what an earlier run counted before its window's end is counted again.

A delivery that replaces the records, or a join that loses customers, changes rows that were there already. An
erasure of customers does so too, but only for few.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from monitoring.config import MonitoringConfig
from monitoring.findings import Cause, Checked, Finding, Measurement, Monitored, Severity

NAMES = ("records_rows", "records_customers")
"""Measurements that later runs compare with."""


def count(records: Sequence[Path], at: datetime, before: Monitored | None) -> pd.DataFrame:
    """Rows and customers before `at`, and before the end of the run `before` as counted then and now.

    Columns: `name`, `value`, `then` and `again`; the last two are NaN without an earlier run. No rows for
    records without times.
    """
    dataset = ds.dataset([str(part) for part in records])
    if "timestamp" not in dataset.schema.names:
        return pd.DataFrame(columns=["name", "value", "then", "again"])
    then = {} if before is None else {one.name: one.value for one in before.checked.measurements}
    now = _counted(dataset, at)
    again = _counted(dataset, before.at) if before is not None else (float("nan"),) * 2
    return pd.DataFrame(
        {
            "name": NAMES,
            "value": now,
            "then": [then.get(name, float("nan")) for name in NAMES],
            "again": again,
        }
    )


def check(counts: pd.DataFrame, config: MonitoringConfig) -> Checked:
    """Findings of cause corruption. `counts` is from `count`."""
    findings: list[Finding] = []
    measured: list[Measurement] = []
    for row in counts.to_dict("records"):
        name, value = str(row["name"]), float(row["value"])
        measured.append(Measurement(name, value, int(value)))
        change = float(row["again"]) / float(row["then"]) - 1 if row["then"] > 0 else 0.0
        if abs(change) > config.arrivals.vanished:
            kind = name.removeprefix("records_")
            findings.append(
                Finding(
                    f"past_{kind}",
                    "records",
                    Cause.CORRUPTION,
                    Severity.PAGE,
                    f"records: {change:+.1%} {kind} before the end of the last run, which counted"
                    f" {row['then']:,.0f}; compare `churn data versions`, and ingest the source again",
                    {"then": float(row["then"]), "again": float(row["again"])},
                )
            )
    return Checked(measured, findings)


def _counted(dataset: ds.Dataset, at: datetime) -> tuple[float, float]:
    rows, users = 0, pa.array([], pa.string())
    before = ds.field("timestamp") < pa.scalar(at, pa.timestamp("us", "UTC"))
    for batch in dataset.to_batches(columns=["user_id"], filter=before):
        rows += batch.num_rows
        users = pc.unique(pa.concat_arrays([users, pc.unique(batch["user_id"]).cast(pa.string())]))
    return float(rows), float(len(users))

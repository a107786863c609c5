"""One run of the monitor: counts from the files, then findings from the counts.

`collect` reads the files and returns small tables. `judge` is a pure function of these tables, so that each
finding can be derived again from the stored evidence.
"""

from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow.compute as pc
import pyarrow.dataset as ds

from monitoring.checks import columns, staleness
from monitoring.config import MonitoringConfig
from monitoring.evidence import Evidence
from monitoring.findings import Checked
from monitoring.severity import arranged
from monitoring.sources import Sources


def collect(sources: Sources, config: MonitoringConfig) -> Evidence:
    """The tables and facts that `judge` needs, from rows before the end of the window."""
    moments = sources.moments()
    newest = sources.snapshot(moments[-1]) if moments else None
    tables = {
        "ages": _ages(sources, moments),
        "columns": columns.empty(sources.used)
        if newest is None
        else columns.count(sources.used, sources.training_rows(), newest),
    }
    facts: dict[str, Any] = {
        "at": sources.at.isoformat(),
        "since": sources.since.isoformat(),
        "ttl_days": sources.spec.ttl_days,
        "config": config.model_dump(mode="json"),
    }
    return Evidence(tables, facts)


def judge(evidence: Evidence) -> Checked:
    """All measurements and findings of the evidence, with the severity of each finding."""
    config = MonitoringConfig.model_validate(evidence.facts["config"])
    at = datetime.fromisoformat(evidence.facts["at"])
    tables = evidence.tables
    checked = staleness.check(tables["ages"], at, evidence.facts["ttl_days"], config)
    checked += columns.check(tables["columns"], config)
    return arranged(checked)


def _ages(sources: Sources, moments: list[pd.Timestamp]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        {"source": "snapshots", "newest": moments[-1] if moments else pd.NaT, "rows": len(moments)}
    ]
    dataset = ds.dataset([str(part) for part in sources.records])
    if "timestamp" in dataset.schema.names:
        found = dataset.to_table(
            columns=["timestamp"], filter=ds.field("timestamp") < pd.Timestamp(sources.at)
        )
        newest = pc.max(found["timestamp"]).as_py()
        rows.append({"source": "records", "newest": newest, "rows": found.num_rows})
    table = pd.DataFrame(rows)
    table["newest"] = pd.to_datetime(table["newest"], utc=True)
    return table

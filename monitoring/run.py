"""One run of the monitor: counts from the files, then findings from the counts.

`collect` reads the files and returns small tables. `judge` is a pure function of these tables, so that each
finding can be derived again from the stored evidence.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow.compute as pc
import pyarrow.dataset as ds

from features.spec import FeaturesConfig
from monitoring import ageing
from monitoring.activity import read_arrivals
from monitoring.checks import arrivals, columns, distributions, past, served, skew, staleness, transitions
from monitoring.compared import compare_distributions
from monitoring.config import MonitoringConfig
from monitoring.evidence import Evidence
from monitoring.findings import Checked, Monitored
from monitoring.performance.check import judge_performance
from monitoring.predictions import Predictions
from monitoring.severity import arranged
from monitoring.sources import Sources
from monitoring.vectors import compare


def collect(sources: Sources, config: MonitoringConfig, earlier: Sequence[Monitored] = ()) -> Evidence:
    """The tables and facts that `judge` needs, from rows before the end of the window.

    `earlier`: the runs before, the oldest first. Raises FeatureError for records or expressions that cannot
    be read.
    """
    moments = sources.moments()
    newest = sources.snapshot(moments[-1]) if moments else None
    training = sources.training_rows()
    predictions = Predictions.of(sources.predictions, sources.since, sources.at, sources.left_out)
    log = read_arrivals(sources, config)
    # one snapshot and its reference are in memory at a time
    followed = ((moment, sources.snapshot(moment)) for moment in moments[-config.history - 1 :])
    tables = {
        "ages": _ages(sources, moments, predictions),
        "columns": columns.count(sources.used, training, newest) if newest is not None else columns.EMPTY,
        "transitions": transitions.follow(followed, sources.spec, config),
        "arrivals": arrivals.EMPTY if log is None else arrivals.follow(log, config),
        "past": past.count(sources.records, sources.at, _run_before(earlier, sources.at)),
        "served": _served(predictions, 0 if newest is None else len(newest)),
        "drops": pd.DataFrame() if predictions is None else predictions.drops(),
        "served_before": _served_before(earlier, sources.since, config),
        "distributions": compare_distributions(sources, newest, moments, predictions, config),
        "skew": compare(sources, predictions, moments, log is not None, config),
        "ageing": ageing.measure(sources, moments, config, earlier),
    }
    facts: dict[str, Any] = {
        "at": sources.at.isoformat(),
        "since": sources.since.isoformat(),
        "features": sources.spec.model_dump(mode="json"),
        "config": config.model_dump(mode="json"),
    }
    return Evidence(tables, facts)


def judge(evidence: Evidence) -> Checked:
    """All measurements and findings of the evidence, with the severity of each finding."""
    config = MonitoringConfig.model_validate(evidence.facts["config"])
    spec = FeaturesConfig.model_validate(evidence.facts["features"])
    at = datetime.fromisoformat(evidence.facts["at"])
    of = evidence.tables
    checked = staleness.check(of["ages"], at, spec.ttl_days, config)
    checked += columns.check(of["columns"], config)
    checked += transitions.check(of["transitions"], spec, config)
    checked += arrivals.check(of["arrivals"], config)
    checked += past.check(of["past"], config)
    checked += served.check(of["served"], of["served_before"], config)
    if "drops" in of:  # evidence of earlier versions has none
        checked += served.check_drops(of["drops"], config)
    if "ageing" in of:  # evidence of earlier versions has none
        checked += ageing.check(of["ageing"])
    checked += distributions.check(of["distributions"], config)
    checked += skew.check(of["skew"], config)
    if "performance_metrics" in of:  # there were predictions of a model that serves
        checked += judge_performance(dict(of), config)
    return arranged(checked)


def _ages(sources: Sources, moments: Sequence[pd.Timestamp], predictions: Predictions | None) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        {"source": "snapshots", "newest": moments[-1] if moments else pd.NaT, "rows": len(moments)}
    ]
    dataset = ds.dataset([str(part) for part in sources.records])
    if "timestamp" in dataset.schema.names:
        before = ds.field("timestamp") < pd.Timestamp(sources.at)
        found = dataset.to_table(columns=["timestamp"], filter=before)
        rows.append(
            {"source": "records", "newest": pc.max(found["timestamp"]).as_py(), "rows": found.num_rows}
        )
    if predictions is not None:
        [(newest, count)] = predictions.query(
            f"SELECT max(time) AS newest, count(*) AS rows FROM ({predictions.rows})"
        ).itertuples(index=False)
        rows.append({"source": "predictions", "newest": newest, "rows": count})
    elif sources.predictions.is_dir():
        rows.append({"source": "predictions", "newest": pd.NaT, "rows": 0})
    table = pd.DataFrame(rows)
    table["newest"] = pd.to_datetime(table["newest"], utc=True)
    return table


def _served(predictions: Predictions | None, eligible: int) -> pd.DataFrame:
    """The counts of customers that monitoring/checks/served.py judges."""
    if predictions is None:
        return pd.DataFrame(columns=["kind", "hits", "rows"])
    [(customers, stale, unknown)] = predictions.query(
        f"""SELECT count(DISTINCT user_id) AS customers,
                   count(DISTINCT user_id) FILTER (status IN ('stale', 'degraded')) AS stale,
                   count(DISTINCT user_id) FILTER (status = 'unknown') AS unknown
            FROM ({predictions.rows})"""
    ).itertuples(index=False)
    return pd.DataFrame(
        [
            {"kind": "served_stale", "hits": stale, "rows": customers},
            {"kind": "served_unknown", "hits": unknown, "rows": customers},
            {"kind": "served_fewer", "hits": max(eligible - customers, 0), "rows": eligible},
        ]
    )


def _served_before(earlier: Sequence[Monitored], since: datetime, config: MonitoringConfig) -> pd.DataFrame:
    """The same counts of the earlier runs whose windows overlap neither this one nor each other."""
    rows: list[dict[str, Any]] = []
    end = since
    for run in reversed(earlier):
        if run.at > end or len({row["at"] for row in rows}) >= config.history:
            continue
        found = {one.name: one for one in run.checked.measurements}
        for kind in served.KINDS:
            one = found.get(f"{kind}_share")
            if one is not None and one.rows:
                rows.append({"at": run.at, "kind": kind, "hits": one.value * one.rows, "rows": one.rows})
        end = run.since
    return pd.DataFrame(rows, columns=["at", "kind", "hits", "rows"])


def _run_before(earlier: Sequence[Monitored], at: datetime) -> Monitored | None:
    return next((run for run in reversed(earlier) if run.at < at), None)

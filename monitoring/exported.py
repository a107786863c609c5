"""The database of rollouts and monitoring as metrics for Prometheus.

`read` reads it, `metrics` computes the metrics from what was read: the newest run of the monitor, retraining
by its ledger, and rollouts. The rules in `monitoring/prometheus/rules` and the dashboards use their names.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.core import Metric

from monitoring.exported_ledger import ledger_metrics
from monitoring.families import gauge
from monitoring.findings import Severity
from rollout.database.ledger_counts import LedgerCounts, Ledgers
from rollout.database.monitor_runs import MonitorRuns, RunRows
from rollout.database.projections import Projection
from rollout.health import standing_metrics
from rollout.state import PHASES, Rollout
from rollout.store import Store

SEVERITIES = tuple(severity.value for severity in Severity)


@dataclass(frozen=True)
class Reading:
    """What the database contained about one model."""

    model: str
    at: datetime
    run: RunRows | None
    """The newest run of the monitor; None before the first one."""
    rollout: Rollout | None
    """The newest rollout."""
    rollouts: Mapping[str, int]
    """Rollouts by phase."""
    projections: Sequence[Projection]
    controlled: bool
    """Whether a controller holds the lease of the model's rollouts."""
    ledger: LedgerCounts


class Records(MonitorRuns, Ledgers, Store):
    """Everything in `rollout.database` that is exported."""


def read(records: Records, model: str, now: datetime) -> Reading:
    """Raises RolloutError when the database cannot be reached."""
    return Reading(
        model,
        now,
        records.newest_run(model),
        records.newest(model),
        records.phases(model),
        records.projections(model),
        records.controller(model, now) is not None,
        records.ledger_counts(model),
    )


def metrics(reading: Reading, interval_s: float) -> Iterator[Metric]:
    """The metrics of a reading. `interval_s`: seconds between two runs of the monitor, by its settings."""
    yield gauge("churn_monitor_interval_seconds", "Seconds between two runs of the monitor, by the settings.",
                {(reading.model,): interval_s}, ("model",))  # fmt: skip
    if reading.run is not None:
        yield from monitor_metrics(reading.run)
    yield from standing_metrics(reading.rollout, reading.projections)
    yield gauge(
        "churn_rollout_controlled", "Whether a controller holds the lease.", {(): float(reading.controlled)}
    )
    yield from ledger_metrics(reading.model, reading.ledger)
    phases: dict[tuple[str, ...], float] = {
        (phase,): float(reading.rollouts.get(phase, 0)) for phase in PHASES
    }
    yield gauge("churn_rollouts", "All rollouts by phase.", phases, ("phase",))


def monitor_metrics(run: RunRows) -> Iterator[Metric]:
    """The newest run of the monitor: its times, findings and measurements."""
    model = (run.model,)
    times = {
        "churn_monitor_last_success_timestamp_seconds": ("When the newest run was recorded.", "recorded"),
        "churn_monitor_window_end_timestamp_seconds": ("End of the time that it judged.", None),
    }
    for name, (text, column) in times.items():
        at = run.at if column is None else run.run[column]
        yield gauge(name, text, {model: at.timestamp()}, ("model",))
    yield gauge(
        "churn_monitor_findings",
        "1: a finding of the newest run. What another finding explains has the severity digest.",
        {
            (run.model, row["check_name"], row["subject"], row["cause"], row["severity"]): 1.0
            for row in run.findings
        },
        ("model", "check", "subject", "cause", "severity"),
    )
    by_severity = [row["severity"] for row in run.findings]
    yield gauge(
        "churn_monitor_open",
        "Findings of the newest run by severity.",
        {(run.model, severity): float(by_severity.count(severity)) for severity in SEVERITIES},
        ("model", "severity"),
    )
    yield from measured(run)


def measured(run: RunRows) -> Iterator[Metric]:
    """`churn_measured_NAME` for each name, `_low` and `_high` for the interval, `_rows` for the rows.

    A number that could not be measured has only its rows."""
    labels = ("model", "version", "subject")
    for name in sorted({row["name"] for row in run.measurements}):
        rows = {
            (run.model, row["version"], row["subject"]): row
            for row in run.measurements
            if row["name"] == name
        }
        parts = {"": "value", "_low": "low", "_high": "high", "_rows": "rows"}
        for suffix, column in parts.items():
            values: dict[tuple[str, ...], float] = {
                key: float(row[column]) for key, row in rows.items() if row[column] is not None
            }
            if values:
                yield gauge(
                    f"churn_measured_{name}{suffix}", f"Measured by the monitor: {column}.", values, labels
                )

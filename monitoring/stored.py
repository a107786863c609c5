"""Runs of the monitor in `rollout.database`: idempotent for a model and a time."""

import math
from datetime import datetime
from typing import Any

from monitoring.findings import Cause, Checked, Finding, Measurement, Monitored, Severity
from rollout.database.monitor_runs import MonitorRuns, RunRows


class MonitorStore(MonitorRuns):
    """Every method is one transaction. All raise RolloutError when the database cannot be reached."""

    def save(self, run: Monitored, recorded: datetime) -> None:
        """Write the run; one of the same model and time is replaced. `recorded`: the time by the clock."""
        self.save_run(rows_of(run, recorded))

    def runs(
        self, model: str, after: datetime | None = None, until: datetime | None = None
    ) -> list[Monitored]:
        """The runs with after < at <= until, the oldest first; None: without that bound."""
        return [monitored(rows) for rows in self.run_rows(model, after, until)]

    def newest(self, model: str, until: datetime | None = None) -> Monitored | None:
        """The newest run, of those at or before `until`; None before the first one."""
        rows = self.newest_run(model, until)
        return None if rows is None else monitored(rows)


def rows_of(run: Monitored, recorded: datetime) -> RunRows:
    """The run as rows of the database."""
    facts = {
        "since": run.since,
        "version": run.version,
        "evidence_sha256": run.evidence_sha256,
        "recorded": recorded,
    }
    measurements = [
        {
            "name": one.name,
            "subject": one.subject,
            "version": one.version,
            "value": _finite(one.value),
            "rows": one.rows,
            "low": _finite(one.low),
            "high": _finite(one.high),
        }
        for one in run.checked.measurements
    ]
    findings = [
        {
            "check_name": one.check,
            "subject": one.subject,
            "cause": one.cause.value,
            "severity": one.severity.value,
            "message": one.message,
            "explained_by": one.explained_by,
            "numbers": {name: _finite(value) for name, value in one.numbers.items()},
        }
        for one in run.checked.findings
    ]
    return RunRows(run.model, run.at, facts, measurements, findings)


def monitored(rows: RunRows) -> Monitored:
    """The run that `rows_of` wrote."""
    run = rows.run
    return Monitored(
        rows.model,
        rows.at,
        run["since"],
        run["version"],
        Checked(
            tuple(
                Measurement(
                    row["name"],
                    _number(row["value"]),
                    row["rows"],
                    row["subject"],
                    row["version"],
                    row["low"],
                    row["high"],
                )
                for row in rows.measurements
            ),
            tuple(
                Finding(
                    row["check_name"],
                    row["subject"],
                    Cause(row["cause"]),
                    Severity(row["severity"]),
                    row["message"],
                    {name: _number(value) for name, value in row["numbers"].items()},
                    row["explained_by"],
                )
                for row in rows.findings
            ),
        ),
        run["evidence_sha256"],
    )


def _finite(value: float | None) -> float | None:
    """JSON and SQL have no NaN and no infinity."""
    return None if value is None or not math.isfinite(value) else float(value)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)

"""Runs of the monitor. monitoring/stored.py turns the rows into measurements and findings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Table, delete, insert, select

from rollout.database.connection import Database
from rollout.database.tables import MONITOR_FINDINGS, MONITOR_MEASUREMENTS, MONITOR_RUNS

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunRows:
    """The rows of one run; `measurements` and `findings` are without `model` and `at`."""

    model: str
    at: datetime
    run: Row
    """since, version, evidence_sha256, recorded"""
    measurements: Sequence[Row]
    findings: Sequence[Row]


class MonitorRuns(Database):
    def save_run(self, rows: RunRows) -> None:
        """Write a run in one transaction. A run of the same model and time is replaced, so that a repeated
        command changes nothing."""
        key = {"model": rows.model, "at": rows.at}
        with self._writing() as connection:
            for table in (MONITOR_FINDINGS, MONITOR_MEASUREMENTS, MONITOR_RUNS):
                connection.execute(delete(table).where(table.c.model == rows.model, table.c.at == rows.at))
            connection.execute(insert(MONITOR_RUNS).values({**key, **rows.run}))
            for table, of in ((MONITOR_MEASUREMENTS, rows.measurements), (MONITOR_FINDINGS, rows.findings)):
                if of:
                    connection.execute(insert(table), [{**key, **row} for row in of])

    def run_rows(
        self, model: str, after: datetime | None = None, until: datetime | None = None
    ) -> list[RunRows]:
        """The runs with after < at <= until, the oldest first; None: without that bound."""

        def of(table: Table) -> list[Row]:
            query = select(table).where(table.c.model == model)
            if after is not None:
                query = query.where(table.c.at > after)
            if until is not None:
                query = query.where(table.c.at <= until)
            query = query.order_by(*table.primary_key.columns)
            return [row._asdict() for row in connection.execute(query)]

        with self._reading() as connection:
            runs, measurements, findings = map(of, (MONITOR_RUNS, MONITOR_MEASUREMENTS, MONITOR_FINDINGS))
        return [
            RunRows(
                model,
                run["at"],
                run,
                [row for row in measurements if row["at"] == run["at"]],
                [row for row in findings if row["at"] == run["at"]],
            )
            for run in runs
        ]

    def newest_run(self, model: str, until: datetime | None = None) -> RunRows | None:
        """The newest run, of those at or before `until`; None before the first one."""
        query = select(MONITOR_RUNS.c.at).where(MONITOR_RUNS.c.model == model)
        if until is not None:
            query = query.where(MONITOR_RUNS.c.at <= until)
        with self._reading() as connection:
            at = connection.execute(query.order_by(MONITOR_RUNS.c.at.desc()).limit(1)).scalar_one_or_none()
        if at is None:
            return None
        return self.run_rows(model, at - timedelta(microseconds=1), at)[0]

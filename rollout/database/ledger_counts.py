"""Counts of the ledger of retraining, for metrics: decisions, runs and grades of one model."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile

from sqlalchemy import Connection, func, select

from rollout.database.connection import Database
from rollout.database.tables import RETRAINING_DECISIONS, RETRAINING_GRADES, RETRAINING_RUNS

RUNS_READ = 100
"""The newest runs, among which failures in a row are counted."""
RUNNING, FAILED = "running", "failed"
"""Outcomes of a run as retraining/decision.py writes them."""
DECISIONS, RUNS, GRADES = RETRAINING_DECISIONS.c, RETRAINING_RUNS.c, RETRAINING_GRADES.c


@dataclass(frozen=True)
class LedgerCounts:
    decisions: Mapping[tuple[str, str, str], int]
    """Action, trigger and obstacle -> decisions; an empty text where there was none."""
    decided: datetime | None
    """When the newest decision was made."""
    action: str
    """That of the newest decision; empty before the first one."""
    runs: Mapping[str, int]
    """Outcome -> runs."""
    failures_in_a_row: int
    """The newest runs that ended, up to the first one that did not fail."""
    running_since: datetime | None
    """When the run began that has not ended."""
    succeeded: datetime | None
    """When the newest run ended that did not fail; a candidate that the gates refused is no failure."""
    grades: Mapping[tuple[str, str, str], int]
    """Action, trigger and grade -> graded decisions."""


class Ledgers(Database):
    def ledger_counts(self, model: str) -> LedgerCounts:
        """The counts of all rows of the model, read in one transaction."""
        with self._reading() as connection:
            return _counts(connection, model)


def _counts(connection: Connection, model: str) -> LedgerCounts:
    mine = RETRAINING_DECISIONS.c.model == model
    by = (DECISIONS.action, DECISIONS.trigger, DECISIONS.obstacle)
    decisions = connection.execute(select(*by, func.count().label("n")).where(mine).group_by(*by)).all()
    newest = connection.execute(
        select(DECISIONS.at, DECISIONS.action).where(mine).order_by(DECISIONS.number.desc()).limit(1)
    ).one_or_none()
    outcomes = connection.execute(
        select(RUNS.outcome, func.count().label("n")).where(RUNS.model == model).group_by(RUNS.outcome)
    ).all()
    runs = connection.execute(
        select(RUNS.outcome, RUNS.started, RUNS.ended)
        .where(RUNS.model == model)
        .order_by(RUNS.started.desc(), RUNS.id.desc())
        .limit(RUNS_READ)
    ).all()
    ended = [run for run in runs if run.outcome != RUNNING]
    graded = (DECISIONS.action, DECISIONS.trigger, GRADES.grade)
    grades = connection.execute(
        select(*graded, func.count().label("n"))
        .join(RETRAINING_GRADES, GRADES.decision == DECISIONS.number)
        .where(mine)
        .group_by(*graded)
    ).all()
    return LedgerCounts(
        decisions={(row.action, row.trigger, row.obstacle): row.n for row in decisions},
        decided=None if newest is None else newest.at,
        action="" if newest is None else newest.action,
        runs={row.outcome: row.n for row in outcomes},
        failures_in_a_row=sum(1 for _ in takewhile(lambda run: run.outcome == FAILED, ended)),
        running_since=next((run.started for run in runs if run.outcome == RUNNING), None),
        succeeded=next((run.ended for run in ended if run.outcome != FAILED), None),
        grades={(row.action, row.trigger, row.grade): row.n for row in grades},
    )

"""Predictions with what their customers did afterwards, read by DuckDB with bounded memory.

The label of a prediction is that of features/labels.py: churned is 1 without activity in [features_at,
features_at + horizon). It is joined only when the horizon has passed. The moment of the features counts and
not that of the request, since a customer who has come back is asked for more often than one who has not.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import duckdb

from core.errors import MonitoringError
from data.config import utc_text
from features.reads import quoted
from monitoring.performance.inputs import FEATURE, PerformanceInputs

MEMORY_LIMIT = "1500MB"
"""Of DuckDB, which spills to a temporary folder above it."""

KEYS = ("user_id", "features_at", "model_version", "score")


@contextmanager
def opened(inputs: PerformanceInputs) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with `predictions`, `scores` and `activity`, each customer as a number.

    `predictions` is a view of the log with customer, moment, version, score and the inputs of the model. The
    table `scores` has no inputs, and one row for each customer, moment and version. `activity` has customer
    and moment. Raises MonitoringError for a missing column.
    """
    with tempfile.TemporaryDirectory(prefix="churn-monitor-") as scratch:
        connection = duckdb.connect()
        try:
            connection.execute(f"SET memory_limit='{MEMORY_LIMIT}'; SET temp_directory='{scratch}'")
            connection.execute("SET TimeZone='UTC'; SET preserve_insertion_order=false")
            connection.register("log", inputs.predictions)
            connection.register("records", inputs.activity)
            connection.execute(f"CREATE VIEW predictions AS {_predictions(connection, inputs)}")
            connection.execute(
                """CREATE TEMP TABLE scores AS SELECT customer, moment, version, min(score) AS score
                   FROM predictions GROUP BY ALL"""
            )
            connection.execute(
                f"""CREATE TEMP TABLE activity AS
                    SELECT hash(user_id) AS customer, "timestamp"::TIMESTAMPTZ AS moment FROM records
                    WHERE "timestamp"::TIMESTAMPTZ < TIMESTAMPTZ '{utc_text(inputs.known_until)}'"""
            )
            yield connection
        finally:
            connection.close()


def _predictions(connection: duckdb.DuckDBPyConnection, inputs: PerformanceInputs) -> str:
    there = {row[0] for row in connection.execute("DESCRIBE log").fetchall()}
    if missing := [name for name in KEYS if name not in there]:
        raise MonitoringError(f"prediction log: no column {missing[0]}; it has {', '.join(sorted(there))}")
    conditions = ["features_at IS NOT NULL", "isfinite(score)",
                  f"features_at::TIMESTAMPTZ < TIMESTAMPTZ '{utc_text(inputs.at)}'"]  # fmt: skip
    if "status" in there:
        conditions.append("status <> 'unknown'")
    if "overridden" in there:
        conditions.append("coalesce(len(overridden), 0) = 0")
    features = ", ".join(
        f"{quoted(FEATURE + name)} AS {quoted(name)}" if FEATURE + name in there
        else f"NULL AS {quoted(name)}"
        for name in inputs_of(inputs)
    )  # fmt: skip
    return f"""SELECT hash(user_id) AS customer, features_at::TIMESTAMPTZ AS moment, model_version AS version,
                 score, {features} FROM log WHERE {" AND ".join(conditions)}"""


def inputs_of(inputs: PerformanceInputs) -> tuple[str, ...]:
    """The inputs of the model, in order."""
    return (*inputs.spec.numeric, *inputs.spec.categorical)


def versions(connection: duckdb.DuckDBPyConnection, after: datetime, until: datetime) -> list[str]:
    """The model versions with predictions for moments in (after, until], sorted."""
    rows = connection.execute(
        f"""SELECT DISTINCT version FROM scores
            WHERE {between("moment", after, until)} ORDER BY version"""
    ).fetchall()
    return [str(row[0]) for row in rows]


def matured_until(inputs: PerformanceInputs) -> datetime:
    """The newest moment whose horizon has passed within the known activity."""
    return min(inputs.at, inputs.known_until) - timedelta(days=inputs.spec.horizon_days)


def between(column: str, after: datetime, until: datetime) -> str:
    """SQL: the time is after `after`, and at or before `until`."""
    return f"{column} > TIMESTAMPTZ '{utc_text(after)}' AND {column} <= TIMESTAMPTZ '{utc_text(until)}'"

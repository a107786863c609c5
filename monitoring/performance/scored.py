"""Predictions with what their customers did afterwards, read by DuckDB with bounded memory.

The label of a prediction is that of features/labels.py: churned is 1 without activity in [features_at,
features_at + horizon). It is joined only when the horizon has passed. The moment of the features counts and
not that of the request, since a customer who has come back is asked for more often than one who has not.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd

from core.errors import MonitoringError
from data.config import utc_text
from features.reads import quoted
from monitoring.performance.inputs import FEATURE, PerformanceInputs

MEMORY_LIMIT = "1500MB"
"""Of DuckDB, which spills to a temporary folder above it."""

MOST_MOMENTS = 12
"""Newest moments to whose labels a calibrator is fitted."""

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


def cohort(
    connection: duckdb.DuckDBPyConnection, inputs: PerformanceInputs, moment: datetime, days: float, most: int
) -> pd.DataFrame:
    """The champion's newest prediction of each customer within `days` before `moment`, at most `most`
    customers, chosen by their number: score, the inputs of the model, and `return_days` from `moment` to the
    first activity (NaN: none before `known_until`). Ordered by customer."""
    _choose_newest(connection, inputs, moment - timedelta(days=days), moment, most)
    _read_inputs(connection, inputs)
    frame = connection.execute(
        f"""SELECT p.*, epoch(a.moment - p.moment) / 86400 AS return_days
            FROM (SELECT * REPLACE (TIMESTAMPTZ '{utc_text(moment)}' AS moment) FROM sampled) AS p
            ASOF LEFT JOIN activity a ON p.customer = a.customer AND a.moment >= p.moment
            ORDER BY p.customer"""
    ).df()
    return frame.astype({"return_days": np.float64})


def matured_sample(
    connection: duckdb.DuckDBPyConnection, inputs: PerformanceInputs, most: int
) -> pd.DataFrame:
    """The champion's predictions whose horizon has passed and that are not training rows, with their labels:
    customer, moment, score, churned and the inputs. At most `most` customers, chosen by their number, and
    MOST_MOMENTS of their newest moments."""
    _choose_moments(connection, inputs, matured_until(inputs), most)
    _read_inputs(connection, inputs)
    return connection.execute(
        f"""SELECT p.*,
                   CAST(a.moment IS NULL OR a.moment >= p.moment + INTERVAL {inputs.spec.horizon_days} DAY
                        AS TINYINT) AS churned
            FROM sampled p ASOF LEFT JOIN activity a ON p.customer = a.customer AND a.moment >= p.moment
            ORDER BY p.customer, p.moment"""
    ).df()


def newest_sample(
    connection: duckdb.DuckDBPyConnection, inputs: PerformanceInputs, most: int
) -> pd.DataFrame:
    """The champion's newest prediction of each customer within the ttl of the features: score and inputs."""
    _choose_newest(connection, inputs, inputs.at - timedelta(days=inputs.spec.ttl_days), inputs.at, most)
    _read_inputs(connection, inputs)
    return connection.execute("SELECT * FROM sampled ORDER BY customer").df()


def _choose_newest(
    connection: duckdb.DuckDBPyConnection,
    inputs: PerformanceInputs,
    after: datetime,
    until: datetime,
    most: int,
) -> None:
    """The table `chosen`: customer, moment and score of the newest prediction of each of `most` customers."""
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE chosen AS
            SELECT customer, max(moment) AS moment, arg_max(score, moment) AS score FROM scores
            WHERE version = ? AND {between("moment", after, until)}
            GROUP BY customer ORDER BY customer LIMIT {int(most)}""",
        [inputs.version],
    )


def _choose_moments(
    connection: duckdb.DuckDBPyConnection, inputs: PerformanceInputs, until: datetime, most: int
) -> None:
    """The table `chosen` with all predictions of `most` customers, from the newest MOST_MOMENTS moments that
    are not of training rows."""
    trained = inputs.trained_until.get(inputs.version, datetime(1900, 1, 1, tzinfo=UTC))
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE chosen AS WITH known AS (
              SELECT customer, moment, score FROM scores
              WHERE version = ? AND {between("moment", trained, until)}),
            customers AS (SELECT DISTINCT customer FROM known ORDER BY customer LIMIT {int(most)}),
            newest AS (SELECT DISTINCT moment FROM known ORDER BY moment DESC LIMIT {MOST_MOMENTS})
            SELECT * FROM known SEMI JOIN customers USING (customer) SEMI JOIN newest USING (moment)""",
        [inputs.version],
    )


def _read_inputs(connection: duckdb.DuckDBPyConnection, inputs: PerformanceInputs) -> None:
    """The table `sampled`: the chosen predictions with the inputs of the model.

    Repeated predictions have equal inputs, so that any of them is read. It is a table, since without the
    number of its rows DuckDB chooses a join with activity that takes quadratic time.
    """
    names = "".join(f", first(p.{quoted(name)}) AS {quoted(name)}" for name in inputs_of(inputs))
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE sampled AS SELECT customer, moment, score{names}
            FROM chosen JOIN predictions AS p USING (customer, moment, score)
            WHERE p.version = ? GROUP BY ALL""",
        [inputs.version],
    )


def between(column: str, after: datetime, until: datetime) -> str:
    """SQL: the time is after `after`, and at or before `until`."""
    return f"{column} > TIMESTAMPTZ '{utc_text(after)}' AND {column} <= TIMESTAMPTZ '{utc_text(until)}'"

"""Samples of the champion's predictions with the inputs of the model, at most so many customers each.

Customers are chosen by their number, which is a hash, so that samples of different moments share them.
"""

from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd

from data.config import utc_text
from features.reads import quoted
from monitoring.performance.inputs import PerformanceInputs
from monitoring.performance.scored import between, inputs_of, matured_until

MOST_MOMENTS = 12
"""Newest moments to whose labels a calibrator is fitted."""


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
    _choose_moments(connection, inputs, _moments(connection, inputs, matured_until(inputs)), most)
    _read_inputs(connection, inputs)
    return connection.execute(
        f"""SELECT p.*,
                   CAST(a.moment IS NULL OR a.moment >= p.moment + INTERVAL {inputs.spec.horizon_days} DAY
                        AS TINYINT) AS churned
            FROM sampled p ASOF LEFT JOIN activity a ON p.customer = a.customer AND a.moment >= p.moment
            ORDER BY p.customer, p.moment"""
    ).df()


def early_sample(
    connection: duckdb.DuckDBPyConnection, inputs: PerformanceInputs, days: float, most: int, least: int
) -> pd.DataFrame:
    """The champion's predictions that are not of training rows, at moments that are at least `days` from each
    other and from the end of the known activity: moment, score, and `stayed_away`, 1 without activity within
    `days` days, else 0. At most `most` customers and MOST_MOMENTS moments, each with `least` predictions."""
    until = min(inputs.at, inputs.known_until) - timedelta(days=days)
    _choose_moments(connection, inputs, _moments(connection, inputs, until, days, least), most)
    return connection.execute(
        f"""SELECT p.moment, p.score,
                   CAST(a.moment IS NULL OR epoch(a.moment - p.moment) >= {days * 86400!r} AS TINYINT)
                     AS stayed_away
            FROM chosen p ASOF LEFT JOIN activity a ON p.customer = a.customer AND a.moment >= p.moment
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


def _moments(
    connection: duckdb.DuckDBPyConnection,
    inputs: PerformanceInputs,
    until: datetime,
    days: float = 0,
    least: int = 1,
) -> list[datetime]:
    """The champion's newest MOST_MOMENTS moments until `until` that are not of training rows, at least `days`
    from each other and with `least` predictions, the newest first."""
    trained = inputs.trained_until.get(inputs.version, datetime(1900, 1, 1, tzinfo=UTC))
    rows = connection.execute(
        f"""SELECT epoch_us(moment) FROM scores WHERE version = ? AND {between("moment", trained, until)}
            GROUP BY moment HAVING count(*) >= {int(least)} ORDER BY moment DESC""",
        [inputs.version],
    ).fetchall()
    chosen: list[datetime] = []
    for (microseconds,) in rows:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
        if not chosen or chosen[-1] - moment >= timedelta(days=days):
            chosen.append(moment)
    return chosen[:MOST_MOMENTS]


def _choose_moments(
    connection: duckdb.DuckDBPyConnection, inputs: PerformanceInputs, moments: list[datetime], most: int
) -> None:
    """The table `chosen` with all predictions of `most` customers at these moments."""
    known = ", ".join(f"TIMESTAMPTZ '{utc_text(moment)}'" for moment in moments) or "NULL"
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE chosen AS WITH known AS (
              SELECT customer, moment, score FROM scores WHERE version = ? AND moment IN ({known})),
            customers AS (SELECT DISTINCT customer FROM known ORDER BY customer LIMIT {int(most)})
            SELECT * FROM known SEMI JOIN customers USING (customer)""",
        [inputs.version],
    )


def _read_inputs(connection: duckdb.DuckDBPyConnection, inputs: PerformanceInputs) -> None:
    """The table `sampled`: the chosen predictions with the inputs of the model.

    Repeated predictions have equal inputs, so that any of them is read. It is a table, since without the
    number of its rows DuckDB chooses a join with activity that takes quadratic time.
    """
    names = "".join(f", first(p.{quoted(name)}) AS {quoted(name)}" for name in inputs_of(inputs))
    [(low, high)] = connection.execute(
        "SELECT epoch_us(min(moment)), epoch_us(max(moment)) FROM chosen"
    ).fetchall()
    # parts of the log with other moments are then not read
    when = (
        "false" if low is None else f"p.moment BETWEEN make_timestamptz({low}) AND make_timestamptz({high})"
    )
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE sampled AS SELECT customer, moment, score{names}
            FROM chosen JOIN predictions AS p USING (customer, moment, score)
            WHERE p.version = ? AND {when} GROUP BY ALL""",
        [inputs.version],
    )

"""Predictions with labels whose horizon has passed, read by DuckDB in batches by ascending score."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb
import numpy as np

from features.reads import quoted
from monitoring.performance.inputs import PerformanceInputs
from monitoring.performance.intervals import Scores, Total
from monitoring.performance.scored import between, matured_until
from training.config import DecisionConfig
from training.decision_value import customer_values
from training.evaluate.bootstrap import MOST_CLUSTERS

BATCH_VECTORS = 128
"""DuckDB's vectors of 2,048 rows that are in memory at a time."""


@dataclass(frozen=True)
class Labelled:
    """The table `labelled` of a connection: cluster, score, churned, value and the columns of segments."""

    connection: duckdb.DuckDBPyConnection
    clusters: int
    decision: DecisionConfig
    valued: str | None
    """The input that is the value of a customer; None: the config has one value for all."""

    def total(self, condition: str, values: Sequence[object]) -> Total:
        """Rows and positives where the SQL `condition` holds; the clusters are those of all rows."""
        [(rows, positives)] = self.connection.execute(
            f"SELECT count(*), coalesce(sum(churned), 0) FROM labelled WHERE {condition}", list(values)
        ).fetchall()
        return Total(int(rows), int(positives), self.clusters)

    def values(self, name: str, most: int) -> list[object]:
        """The most frequent values of a column, the most frequent one first."""
        rows = self.connection.execute(
            f"""SELECT {quoted(name)} FROM labelled WHERE {quoted(name)} IS NOT NULL
                GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {int(most)}"""
        ).fetchall()
        return [row[0] for row in rows]

    def by_score(self, condition: str, values: Sequence[object]) -> Iterator[Scores]:
        """The rows where the condition holds, in batches by ascending score."""
        result = self.connection.execute(
            f"SELECT cluster, score, churned, value FROM labelled WHERE {condition} ORDER BY score",
            list(values),
        )
        while len(frame := result.fetch_df_chunk(BATCH_VECTORS)):
            value = None
            if self.valued is not None:
                value = customer_values(frame.rename(columns={"value": self.valued}), self.decision)
            yield Scores(
                frame["cluster"].to_numpy(dtype=np.int64),
                frame["score"].to_numpy(dtype=np.float64),
                frame["churned"].to_numpy(dtype=np.int64),
                value,
            )


def labelled(
    connection: duckdb.DuckDBPyConnection,
    inputs: PerformanceInputs,
    version: str,
    after: datetime,
    segments: Sequence[str] = (),
    valued: str | None = None,
) -> Labelled:
    """Predictions of `version` for moments after `after` whose horizon has passed, with their labels; one row
    for each customer and moment. `segments` and `valued` are inputs of the model.

    Above 4 * MOST_CLUSTERS rows, customers are merged by their number, without a table of all customers.
    Raises ConfigError if `valued` is no input.
    """
    if valued is not None:
        inputs.decision.refuse_unknown_column(inputs.spec.numeric)
    names = [*segments, *([valued] if valued is not None else [])]
    inner = "".join(f", any_value({quoted(name)}) AS {quoted(name)}" for name in dict.fromkeys(names))
    where = f"version = ? AND {between('moment', after, matured_until(inputs))}"
    rows_of = (
        f"SELECT customer, moment, min(score) AS score{inner} FROM predictions WHERE {where} GROUP BY ALL"
    )
    if not names:
        rows_of = f"SELECT customer, moment, score FROM scores WHERE {where}"
    # a table and no view: without the number of its rows, DuckDB chooses a join that takes quadratic time
    connection.execute(f"CREATE OR REPLACE TEMP TABLE scored AS {rows_of}", [version])
    [(rows,)] = connection.execute("SELECT count(*) FROM scored").fetchall()
    merged = rows > 4 * MOST_CLUSTERS
    cluster = f"(p.customer % {MOST_CLUSTERS})" if merged else "dense_rank() OVER (ORDER BY p.customer) - 1"
    value = "NULL" if valued is None else f"p.{quoted(valued)}"
    columns = "".join(f", p.{quoted(name)}" for name in segments)
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE labelled AS
            SELECT ({cluster})::INTEGER AS cluster, p.score, {value}::DOUBLE AS value{columns},
                   CAST(a.moment IS NULL OR a.moment >= p.moment + INTERVAL {inputs.spec.horizon_days} DAY
                        AS TINYINT) AS churned
            FROM scored p ASOF LEFT JOIN activity a ON p.customer = a.customer AND a.moment >= p.moment"""
    )
    connection.execute("DROP TABLE scored")
    [(clusters,)] = connection.execute("SELECT coalesce(max(cluster), -1) + 1 FROM labelled").fetchall()
    return Labelled(connection, int(clusters), inputs.decision, valued)

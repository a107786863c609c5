"""Computes snapshots and labels from a log of purchases in Spark, by the queries of features/purchases.py.

Each customer's rows are in one partition, sorted by time, so that a snapshot needs no further exchange of
rows. The executors write parts; this process sorts each snapshot into one file, with bounded memory.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow.parquet as pq

from core.errors import FeatureError
from features.database import open_database, parquet, write_parquet
from features.eligible import Rule
from features.labels import moment, with_labels
from features.log import Log
from features.purchases import LABELS, activity_of, kinds, opened, snapshot_at
from features.snapshots import Schedule
from features.spark.dialect import rendered, unproven
from features.spark.exchange import Exchange, open_exchange
from features.spark.rows import create_views
from features.spark.session import open_session
from features.spec import SQL_TYPE, FeaturesConfig

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PARTITION_ROWS = 250_000
"""Rows in a partition of customers, as RANGE_ROWS of features/log.py."""

_CHURNED = "churned"
_SQL_TYPES = {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN"}
_STANDARD = {
    "user_id": "VARCHAR", "timestamp": "TIMESTAMP", "is_return": "BOOLEAN", "amount": "DOUBLE",
    "quantity": "DOUBLE", "age_days": "DOUBLE", "gap_days": "DOUBLE",
}  # fmt: skip


def write_parts(
    spec: FeaturesConfig,
    records: Sequence[Path],
    schedule: Schedule,
    out: Path,
    progress: Callable[[str], None],
) -> int:
    """As `write_parts` of features/purchases.py, with the same files and the same result.

    Raises FeatureError also for expressions that have not been shown to be equal in Spark, when Spark cannot
    be started, and when it fails.
    """
    for folder in ("snapshots", "labels"):
        (out / folder).mkdir(parents=True)
    with open_database(spec, out / "spill") as connection:
        log, rule = opened(spec, connection, records, schedule)
        refuse_unproven(spec, _types(records))
        partitions = max(1, sum(part.rows for part in log.parts) // PARTITION_ROWS)
        progress("snapshots: starting Spark")
        with (
            open_exchange(spec.spark, records, out / "exchange") as exchange,
            open_session(spec.spark, out / "spill", partitions) as session,
        ):
            rows = create_views(session, log, kinds(spec), exchange.records, partitions)
            for number, as_of in enumerate(schedule.snapshots):
                _compute(session, _query(spec, rule, log, schedule, as_of), exchange, number)
                _collect(connection, exchange, number, as_of in schedule.labelled, out)
                progress(f"snapshots: {number + 1} of {len(schedule.snapshots)} moments")
            known = _known(session, schedule) if rule.condition != "true" else 0
            rows.unpersist()
    written = sum(pq.read_metadata(file).num_rows for file in (out / "snapshots").iterdir())
    return known - written if rule.condition != "true" else 0


def refuse_unproven(spec: FeaturesConfig, types: Mapping[str, str]) -> None:
    """Raise FeatureError for an expression that has not been shown to be equal in both engines.

    `types`: column of the log -> DuckDB's type of it.
    """
    expressions = [(f"feature {f.name}", str(f.sql), types) for f in spec.features]
    if spec.eligibility is not None:
        of_features = {feature.name: SQL_TYPE[feature.dtype] for feature in spec.features}
        expressions.append(("features.eligible", spec.eligibility, of_features))
    for place, sql, columns in expressions:
        if what := unproven(sql, columns):
            raise FeatureError(
                f"{place}: {what} has not been shown to give the same in Spark; write it otherwise, or set "
                "features.engine: duckdb"
            )


def _types(records: Sequence[Path]) -> dict[str, str]:
    fields = [field for file in records for field in pq.read_schema(file)]
    return {field.name: _SQL_TYPES.get(str(field.type), "BLOB") for field in fields} | _STANDARD


def _query(spec: FeaturesConfig, rule: Rule, log: Log, schedule: Schedule, as_of: datetime) -> str:
    """SQL of DuckDB: the snapshot at `as_of`, with `churned` if it is labelled."""
    snapshot = snapshot_at(spec, rule, log, as_of)
    if as_of not in schedule.labelled:
        return snapshot
    return with_labels(f"({snapshot})", activity_of(spec), as_of, spec.horizon)


def _compute(session: "SparkSession", query: str, exchange: Exchange, number: int) -> None:
    session.sql(rendered(query)).write.parquet(exchange.target(number), compression="zstd")


def _collect(
    connection: duckdb.DuckDBPyConnection, exchange: Exchange, number: int, is_labelled: bool, out: Path
) -> None:
    """Write one snapshot, and its labels, from what the executors wrote, in the order of the customers."""
    rows, name = parquet(*exchange.fetch(number)), f"{number:05d}-00000.parquet"
    snapshot = f"* EXCLUDE ({_CHURNED})" if is_labelled else "*"
    write_parquet(connection, f"SELECT {snapshot} FROM {rows} ORDER BY user_id", out / "snapshots" / name)
    if is_labelled:
        write_parquet(connection, f"SELECT {LABELS} FROM {rows} ORDER BY user_id", out / "labels" / name)
    exchange.discard(number)


def _known(session: "SparkSession", schedule: Schedule) -> int:
    """The number of customers with a purchase before a moment, summed over the moments."""
    counts = [f"count(*) FILTER (begun < {moment(as_of)})" for as_of in schedule.snapshots]
    begun = 'SELECT min("timestamp#") AS begun FROM purchases GROUP BY "user_id#"'
    [row] = session.sql(rendered(f"SELECT {' + '.join(counts)} AS known FROM ({begun})")).collect()
    return int(row["known"])

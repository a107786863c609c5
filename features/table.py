"""From a labelled table to snapshots and labels: one row a customer, at the time that the row carries."""

from datetime import datetime
from pathlib import Path

import duckdb

from features import expressions
from features.database import opened, parquet, write_parquet
from features.snapshots import Schedule
from features.spec import FeaturesConfig


def write_parts(spec: FeaturesConfig, records: Path, out: Path) -> Schedule:
    """Fill `out/snapshots` and `out/labels` with one sorted Parquet part each; every moment is labelled."""
    for folder in ("snapshots", "labels"):
        (out / folder).mkdir(parents=True)
    source = f"SELECT * FROM {parquet(records)}"
    with opened(spec, out / "spill") as connection:
        expressions.check(spec, connection, source, grouped=False)
        moments = _moments(connection, source)
        try:
            write_parquet(connection, _snapshots(spec, source), out / "snapshots" / "0.parquet")
        except duckdb.Error as error:
            raise expressions.blame(spec, connection, source, False, error) from None
        write_parquet(connection, _labels(source), out / "labels" / "0.parquet")
    return Schedule(moments, moments)


def _moments(connection: duckdb.DuckDBPyConnection, source: str) -> tuple[datetime, ...]:
    rows = connection.execute(
        f"SELECT DISTINCT strftime(event_timestamp, '%Y-%m-%dT%H:%M:%S.%f+00:00') FROM ({source}) ORDER BY 1"
    ).fetchall()
    return tuple(datetime.fromisoformat(row[0]) for row in rows)


def _snapshots(spec: FeaturesConfig, source: str) -> str:
    return f"""
        SELECT user_id, event_timestamp, event_timestamp AS created_timestamp,
          {expressions.columns(spec.features)}
        FROM ({source}) ORDER BY event_timestamp, user_id"""


def _labels(source: str) -> str:
    return f"""
        SELECT user_id, event_timestamp, CAST(target AS TINYINT) AS churned
        FROM ({source}) ORDER BY event_timestamp, user_id"""

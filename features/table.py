"""Computes snapshots and labels from a labelled table: one of each per row, at the time of the row."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from core.errors import FeatureError
from features.database import open_database, parquet, write_parquet
from features.eligible import Rule
from features.expressions import Aliases, Expressions, columns
from features.reads import quoted
from features.snapshots import Schedule
from features.spec import TABLE_COLUMNS, FeaturesConfig


def write_parts(spec: FeaturesConfig, records: Sequence[Path], out: Path) -> tuple[Schedule, int]:
    """Fill `out/snapshots` and `out/labels` with one sorted Parquet part each; every row is labelled.

    A customer may have several rows with different times. Returns the times of the rows, and the number of
    rows of customers who are not eligible. Raises FeatureError for expressions that do not fit or fail.
    """
    for folder in ("snapshots", "labels"):
        (out / folder).mkdir(parents=True)
    aliases = _aliases(records)
    source = _source(records, aliases)
    with open_database(spec, out / "spill") as connection:
        _refuse_unsuitable(spec)
        bound = Expressions(spec, aliases, grouped=False)
        bound.check(connection, source)
        rule = Rule.of(spec, connection)
        moments = _moments(connection, source)
        rows = _rows(spec, rule, source, aliases)
        try:
            write_parquet(
                connection,
                f"SELECT * EXCLUDE ({_TARGET}) FROM ({rows}) ORDER BY event_timestamp, user_id",
                out / "snapshots" / "0.parquet",
            )
        except duckdb.Error as error:
            raise bound.computation_error(connection, lambda over: source, error) from None
        write_parquet(
            connection,
            f"SELECT user_id, event_timestamp, CAST({_TARGET} AS TINYINT) AS churned FROM ({rows}) "
            "ORDER BY event_timestamp, user_id",
            out / "labels" / "0.parquet",
        )
    written = pq.read_metadata(out / "snapshots" / "0.parquet").num_rows
    return Schedule(moments, moments), sum(pq.read_metadata(file).num_rows for file in records) - written


_USER, _AT, _TARGET = (quoted(f"{name}#") for name in ("user_id", "event_timestamp", "target"))


def _aliases(records: Sequence[Path]) -> dict[str, str]:
    """Column of any part -> its alias in an expression (features/reads.py)."""
    names = dict.fromkeys(name for file in records for name in pq.read_schema(file).names)
    ours = {name: f"{name}#" for name in TABLE_COLUMNS}
    return {name: ours.get(name, f"{name}#{place}") for place, name in enumerate(names)}


def _source(records: Sequence[Path], aliases: Aliases) -> str:
    """SQL: the rows of all parts. Columns are selected by position, because DuckDB ignores case in names."""
    selects = []
    for file in records:
        theirs = pq.read_schema(file).names
        listed = ", ".join(
            f"{f'c{theirs.index(name)}' if name in theirs else 'NULL'} AS {quoted(alias)}"
            for name, alias in aliases.items()
        )
        names = ", ".join(f"c{place}" for place in range(len(theirs)))
        selects.append(f"SELECT {listed} FROM {parquet(file)} AS part({names})")
    return " UNION ALL ".join(selects)


def _refuse_unsuitable(spec: FeaturesConfig) -> None:
    """Raise FeatureError for a feature that reads the target, or rows that a labelled table does not have."""
    for feature in spec.features:
        if "target" in feature.reading.columns:
            raise FeatureError(
                f"feature {feature.name}: reads the target, which is to be predicted; correct its sql"
            )
        if feature.over != "purchases":
            raise FeatureError(f"feature {feature.name}: over: a labelled table has no returns; leave it out")


def _moments(connection: duckdb.DuckDBPyConnection, source: str) -> tuple[datetime, ...]:
    rows = connection.execute(
        f"SELECT DISTINCT strftime({_AT}, '%Y-%m-%dT%H:%M:%S.%f+00:00') FROM ({source}) ORDER BY 1"
    ).fetchall()
    return tuple(datetime.fromisoformat(row[0]) for row in rows)


def _rows(spec: FeaturesConfig, rule: Rule, source: str, aliases: Aliases) -> str:
    listed = ",\n  ".join(columns(spec.features, aliases))
    return f"""
        SELECT * FROM (
          SELECT {_USER} AS user_id, {_AT} AS event_timestamp, {_AT} AS created_timestamp, {_TARGET},
            {listed}
          FROM ({source}))
        WHERE {rule.condition}"""

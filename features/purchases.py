"""Computes snapshots and labels from a log of purchases, by ranges of customers.

Each range is read once, by one thread. Memory is bounded by the range, for a log of any length. A customer's
values are added in the order of time, so that equal input gives equal bytes on any number of cores.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from core.errors import FeatureError
from data.config import utc_text
from features.database import open_database, parquet, write_parquet
from features.eligible import Rule
from features.expressions import Expressions, columns
from features.labels import moment, with_labels
from features.log import Log, Range, merge, open_log, ranges, with_gaps
from features.reads import quoted
from features.snapshots import Schedule
from features.spec import Feature, FeaturesConfig, Over

_DAY_US = 86_400_000_000.0


def write_parts(
    spec: FeaturesConfig,
    records: Sequence[Path],
    schedule: Schedule,
    out: Path,
    progress: Callable[[str], None],
) -> int:
    """Fill `out/snapshots` and `out/labels` with Parquet parts whose names sort by (time, customer).

    Returns the number of rows, over all times, of customers who are not eligible. Raises FeatureError for
    unsorted records, and for expressions that do not fit them or fail.
    """
    for folder in ("snapshots", "labels"):
        (out / folder).mkdir(parents=True)
    with open_database(spec, out / "spill") as connection:
        log, rule = opened(spec, connection, records, schedule)
        build = _Build(spec, rule, log, schedule, out)
        cut = ranges(connection, log)
        with ThreadPoolExecutor(min(spec.threads or os.cpu_count() or 1, len(cut))) as pool:
            jobs = [pool.submit(_write_range, build, connection.cursor(), one) for one in cut]
            excluded = 0
            try:
                for done, job in enumerate(as_completed(jobs), 1):
                    excluded += job.result()
                    progress(f"snapshots: {done} of {len(jobs)} customer ranges")
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return excluded


def opened(
    spec: FeaturesConfig, connection: duckdb.DuckDBPyConnection, records: Sequence[Path], schedule: Schedule
) -> tuple[Log, Rule]:
    """The log, and the rule of the spec. Raises FeatureError for an expression that does not fit the log."""
    log, rule = open_log(spec, records), Rule.of(spec, connection)
    no_rows = with_gaps(log, merge(connection, log, Range(0, "", "")), "all")
    relation = rows_before(f"({no_rows})", schedule.latest)
    Expressions(spec, log.aliases).check(connection, relation, log.known)
    return log, rule


@dataclass(frozen=True)
class _Build:
    """What all ranges of customers have in common."""

    spec: FeaturesConfig
    rule: Rule
    log: Log
    schedule: Schedule
    out: Path

    @property
    def expressions(self) -> Expressions:
        return Expressions(self.spec, self.log.aliases)


def _write_range(build: _Build, connection: duckdb.DuckDBPyConnection, customers: Range) -> int:
    """Write one range at all times. The log is read and its gaps are computed only once."""
    spec, rule, log, schedule, out = build.spec, build.rule, build.log, build.schedule, build.out
    excluded = 0
    try:
        load(spec, connection, log, merge(connection, log, customers))
        connection.execute("DROP TABLE IF EXISTS merged")
        for number, as_of in enumerate(schedule.snapshots):
            name = f"{number:05d}-{customers.number:05d}.parquet"
            snapshot = out / "snapshots" / name
            write_parquet(connection, snapshot_at(spec, rule, log, as_of), snapshot)
            excluded += rule.count_excluded(connection, "purchases", as_of, snapshot)
            if as_of in schedule.labelled:
                labels = with_labels(parquet(snapshot), activity_of(spec), as_of, spec.horizon)
                write_parquet(connection, f"SELECT {LABELS} FROM ({labels})", out / "labels" / name)
    except duckdb.Error as error:
        raise build.expressions.computation_error(
            connection, lambda over: rows_before(_TABLES[over], schedule.latest), error
        ) from None
    finally:
        connection.close()
    return excluded


LABELS = "user_id, event_timestamp, churned"
"""The columns of the labels."""


def activity_of(spec: FeaturesConfig) -> str:
    """The table of `load` with the rows that show that a customer has not churned."""
    return "everything" if spec.returns_count_as_life else "purchases"


def table_of(over: Over) -> str:
    """The table of `load` with this kind of rows."""
    return _TABLES[over]


_TABLES: dict[Over, str] = {"purchases": "purchases", "returns": "returned", "all": "everything"}


def load(spec: FeaturesConfig, connection: duckdb.DuckDBPyConnection, log: Log, rows: str) -> None:
    """Create a temporary table for each kind of rows that the spec reads, replacing an earlier one.

    `rows` is SQL with the columns of `features.log.merge`, sorted by customer and time. Raises FeatureError
    when they are not sorted.
    """
    for over in kinds(spec):
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {_TABLES[over]} AS {with_gaps(log, rows, over)}")
        if connection.execute(f'SELECT bool_or("unsorted#") FROM {_TABLES[over]}').fetchall() == [(True,)]:
            raise FeatureError(
                f"{_origin(log)}: not sorted by user_id and timestamp; run `churn ingest` again"
            )


def _origin(log: Log) -> str:
    return str(log.parts[0].file.parent) if log.parts else "rows"


def kinds(spec: FeaturesConfig) -> list[Over]:
    """The kinds of rows to load. Purchases are always needed, because they define the known customers."""
    needed = {"purchases", *(feature.over for feature in spec.features)}
    return [over for over in _TABLES if over in needed or (over == "all" and spec.returns_count_as_life)]


def snapshot_at(spec: FeaturesConfig, rule: Rule, log: Log, as_of: datetime) -> str:
    """SQL over the tables of `load`: all eligible customers with a purchase before `as_of`, by user_id.

    Features over other rows are joined to them.
    """
    at = f"TIMESTAMPTZ '{utc_text(as_of)}'"
    tables = [_group(spec, log, "purchases", as_of)]
    values = {feature.name: quoted(feature.name) for feature in spec.features}
    for over in ("returns", "all"):
        if features := _features(spec, over):
            tables += _joined(features, log, over, as_of)
            values |= {
                f.name: f'CASE WHEN {over}_of."user_id#" IS NULL THEN no_{over}.{quoted(f.name)} '
                f"ELSE {over}_of.{quoted(f.name)} END AS {quoted(f.name)}"
                for f in features
            }
    return f"""
        SELECT * FROM (
          SELECT known."user_id#" AS user_id, {at} AS event_timestamp, {at} AS created_timestamp,
            {", ".join(values.values())}
          FROM {" ".join(tables)})
        WHERE {rule.condition} ORDER BY user_id"""


def _features(spec: FeaturesConfig, over: Over) -> list[Feature]:
    return [feature for feature in spec.features if feature.over == over]


def _group(spec: FeaturesConfig, log: Log, over: Over, as_of: datetime) -> str:
    listed = ", ".join(['"user_id#"', *columns(_features(spec, over), log.aliases)])
    return f'(SELECT {listed} FROM ({rows_before(_TABLES[over], as_of)}) GROUP BY "user_id#") AS known'


def _joined(features: Sequence[Feature], log: Log, over: Over, as_of: datetime) -> list[str]:
    """SQL: the groups, and one row with the values of the aggregates for a customer without such rows."""
    listed = ", ".join(columns(features, log.aliases))
    seen = rows_before(_TABLES[over], as_of)
    return [
        f'LEFT JOIN (SELECT "user_id#", {listed} FROM ({seen}) GROUP BY "user_id#") AS {over}_of '
        f'ON known."user_id#" = {over}_of."user_id#"',
        f"CROSS JOIN (SELECT {listed} FROM ({seen}) WHERE false) AS no_{over}",
    ]


def rows_before(rows: str, as_of: datetime) -> str:
    """SQL: the rows before `as_of`. Features read the log only through this, so that no future row leaks."""
    return f"""
        SELECT * EXCLUDE ("unsorted#"),
          (epoch_us({moment(as_of)}) - epoch_us("timestamp#")) / {_DAY_US} AS "age_days#"
        FROM {rows} WHERE "timestamp#" < {moment(as_of)}"""

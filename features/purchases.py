"""From a log of purchases to snapshots and labels, customer range by customer range.

The log is sorted by customer, so it is cut into ranges of whole customers. Each range is read once, by one
thread: memory is bounded by the range whatever the log's length, and a customer's sums are added up in the
order of time, so that equal input gives equal bytes on any number of cores.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import duckdb

from data.config import utc_text
from data.errors import FeatureError
from features import expressions
from features.database import name, opened, parquet, text, write_parquet
from features.labels import labels_at, moment
from features.snapshots import Schedule
from features.spec import FeaturesConfig

RANGE_ROWS = 250_000
"""Purchases that one thread reads at a time: some 30 MB, and enough to make the parts worth their files."""

_OURS = ("user_id", "timestamp", "gap_days", "age_days", "unsorted")
_DAY_US = 86_400_000_000.0


@dataclass(frozen=True)
class Log:
    """The purchases file, and which of its further columns the spec's expressions read."""

    records: Path
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """Customers with low <= user_id < high; None is open."""

    number: int
    low: str | None
    high: str | None


def write_parts(
    spec: FeaturesConfig, records: Path, schedule: Schedule, out: Path, progress: Callable[[str], None]
) -> None:
    """Fill `out/snapshots` and `out/labels` with Parquet parts whose names sort by (moment, customer)."""
    for folder in ("snapshots", "labels"):
        (out / folder).mkdir(parents=True)
    with opened(spec, out / "spill") as connection:
        log = _describe(spec, connection, records)
        example = _seen(f"({_purchases(log, Range(0, None, None))})", schedule.latest)
        expressions.check(spec, connection, example, grouped=True)
        ranges = _ranges(connection, log)
        with ThreadPoolExecutor(min(spec.threads or os.cpu_count() or 1, len(ranges))) as pool:
            jobs = [
                pool.submit(_write_range, spec, connection.cursor(), log, r, schedule, out) for r in ranges
            ]
            try:
                for done, job in enumerate(as_completed(jobs), 1):
                    job.result()
                    progress(f"snapshots: {done} of {len(jobs)} customer ranges")
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _write_range(
    spec: FeaturesConfig,
    connection: duckdb.DuckDBPyConnection,
    log: Log,
    customers: Range,
    schedule: Schedule,
    out: Path,
) -> None:
    """One range at every moment: the log is read and its gaps are computed once, the rest is aggregation."""
    try:
        connection.execute(f"CREATE TEMP TABLE log AS {_purchases(log, customers)}")
        if connection.execute("SELECT bool_or(unsorted) FROM log").fetchall() == [(True,)]:
            raise FeatureError(
                f"{log.records}: not sorted by user_id and timestamp; run `churn ingest` again"
            )
        for number, as_of in enumerate(schedule.snapshots):
            part = f"{number:05d}-{customers.number:05d}.parquet"
            write_parquet(connection, _snapshot(spec, as_of), out / "snapshots" / part)
            if as_of in schedule.labelled:
                write_parquet(connection, labels_at("log", as_of, spec.horizon), out / "labels" / part)
    except duckdb.Error as error:
        raise expressions.blame(spec, connection, _seen("log", schedule.latest), True, error) from None
    finally:
        connection.close()


def _snapshot(spec: FeaturesConfig, as_of: datetime) -> str:
    at = f"TIMESTAMPTZ '{utc_text(as_of)}'"
    return f"""
        SELECT user_id, {at} AS event_timestamp, {at} AS created_timestamp,
          {expressions.columns(spec.features)}
        FROM ({_seen("log", as_of)}) GROUP BY user_id ORDER BY user_id"""


def _seen(log: str, as_of: datetime) -> str:
    """What a snapshot may see. Features meet the log nowhere else."""
    return f"""
        SELECT * EXCLUDE (unsorted), (epoch_us({moment(as_of)}) - epoch_us(timestamp)) / {_DAY_US} AS age_days
        FROM {log} WHERE timestamp < {moment(as_of)}"""


def _purchases(log: Log, customers: Range) -> str:
    """The range's purchases in the file's order, with `gap_days`.

    `lag` over the file's own order streams: nothing is sorted or held, and equal timestamps stay as they are.
    """
    rest = "".join(f", {name(column)}" for column in log.columns)
    low = f"user_id >= {text(customers.low)}" if customers.low is not None else "true"
    high = f"user_id < {text(customers.high)}" if customers.high is not None else "true"
    return f"""
        SELECT user_id, make_timestamp(us) AS timestamp{rest},
               CASE WHEN user_id = before_id THEN (us - before_us) / {_DAY_US} END AS gap_days,
               coalesce(user_id < before_id OR (user_id = before_id AND us < before_us), false) AS unsorted
        FROM (SELECT *, lag(user_id) OVER () AS before_id, lag(us) OVER () AS before_us
              FROM (SELECT user_id, epoch_us(timestamp) AS us{rest} FROM {parquet(log.records)}
                    WHERE {low} AND {high}))"""


def _describe(spec: FeaturesConfig, connection: duckdb.DuckDBPyConnection, records: Path) -> Log:
    known = [
        str(row[0]) for row in connection.execute(f"DESCRIBE SELECT * FROM {parquet(records)}").fetchall()
    ]
    read = [c for c in known if c not in _OURS and expressions.mentioned(spec.features, c)]
    return Log(records, tuple(read))


def _ranges(connection: duckdb.DuckDBPyConnection, log: Log) -> Sequence[Range]:
    """Cut where a customer begins, about every RANGE_ROWS rows; a customer with more stays whole."""
    rows = connection.execute(f"""
        SELECT DISTINCT user_id FROM {parquet(log.records, ", file_row_number = true")}
        WHERE file_row_number > 0 AND file_row_number % {RANGE_ROWS} = 0 ORDER BY user_id""").fetchall()
    cuts = [None, *(str(row[0]) for row in rows), None]
    return [Range(number, low, high) for number, (low, high) in enumerate(pairwise(cuts))]

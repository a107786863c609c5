"""Reads the log by step and customer in DuckDB, whose memory is bounded."""

from collections.abc import Sequence

import duckdb
import pyarrow.parquet as pq

from features.reads import literal, quoted
from monitoring.checks.arrivals import Arrivals
from monitoring.config import MonitoringConfig
from monitoring.sources import Sources

MOST_VALUES = 20
"""Values of a segment that are judged separately, those of most customers first."""


def read_arrivals(sources: Sources, config: MonitoringConfig) -> Arrivals | None:
    """The last `history` whole steps before the end of the window; None for records that are no log."""
    parts = [str(part) for part in sources.records]
    names = set(pq.read_schema(parts[0]).names)
    if "timestamp" not in names:
        return None
    files = ", ".join(literal(part) for part in parts)
    segments = [name for name in config.segments if name in names]
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET memory_limit = {literal(sources.spec.memory_limit)}")
        connection.execute(_rows(files, names, segments, sources, config))
        [(steps,)] = connection.execute("SELECT least(max(back), ?) FROM dated", [config.history]).fetchall()
        steps = max(int(steps or 0), 1)  # the oldest step is not whole
        customers = connection.execute(_customers(segments, steps)).df()
        activity = connection.execute(_activity(names, steps)).df()
    for name in segments:
        common = customers[name].value_counts().index[:MOST_VALUES]
        customers[name] = customers[name].where(customers[name].isin(common))
    return Arrivals(activity, customers[["first", *segments]], steps)


def _rows(
    files: str, names: set[str], segments: Sequence[str], sources: Sources, config: MonitoringConfig
) -> str:
    """SQL: the rows before the end of the window, with the number of steps back from there, from 0."""
    at = f"TIMESTAMPTZ '{sources.at.isoformat()}'"
    length = f"{config.every_days} * 86400000000"
    purchase = "NOT coalesce(is_return, false)" if "is_return" in names else "true"
    back = f"floor((epoch_us({at}) - epoch_us(timestamp) - 1) / ({length}))::BIGINT"
    values = ", ".join(f"{quoted(name)}::VARCHAR AS {quoted(name)}" for name in segments)
    return f"""
        CREATE TEMP VIEW dated AS
        SELECT user_id, timestamp, amount, {purchase} AS is_purchase, {back} AS back,
               hash(rows) AS digest {"," if values else ""} {values}
        FROM read_parquet([{files}], union_by_name = true) AS rows WHERE timestamp < {at}"""


def _customers(segments: Sequence[str], steps: int) -> str:
    values = "".join(f", any_value({quoted(name)}) AS {quoted(name)}" for name in segments)
    return f"""
        SELECT user_id, greatest({steps - 1} - max(back), -1) AS first {values}
        FROM dated WHERE is_purchase GROUP BY user_id ORDER BY user_id"""


def _activity(names: set[str], steps: int) -> str:
    return f"""
        WITH users AS (SELECT user_id, row_number() OVER (ORDER BY user_id) - 1 AS number
                       FROM (SELECT DISTINCT user_id FROM dated WHERE is_purchase))
        SELECT {steps - 1} - back AS step, number AS user, median(amount) AS amount,
               hour(min(timestamp))::BIGINT AS hour, count(*) - count(DISTINCT digest) AS repeats
        FROM dated JOIN users USING (user_id)
        WHERE is_purchase AND back < {steps} GROUP BY step, number ORDER BY step, number"""

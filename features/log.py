"""Reads the purchase log that ingest wrote: Parquet parts, each sorted by customer and time.

The parts of the base come first, then the deliveries. They are read by ranges of customers: for a range, only
parts with its customers are opened, and their rows are sorted by customer, time, part and place.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import FeatureError
from features.database import parquet
from features.reads import literal, quoted
from features.spec import COMPUTED, LOG_COLUMNS, FeaturesConfig, Over, columns_read

RANGE_ROWS = 250_000
"""Rows that one thread reads at a time: about 30 MB, and enough to limit the number of files."""
SAMPLE_ROWS = 1_000
"""Every 1,000th row is sampled to choose the boundaries of ranges."""

ALIASES = {name: f"{name}#" for name in sorted(LOG_COLUMNS)}
"""Aliases of the standard columns. DuckDB reads no source column under its own name (features/reads.py)."""

_DAY_US = 86_400_000_000.0
_KINDS: Mapping[Over, str] = {"purchases": 'NOT "is_return#"', "returns": '"is_return#"', "all": "true"}


@dataclass(frozen=True)
class Part:
    """A Parquet file. `low` and `high` are its first and last customer, None without statistics."""

    file: Path
    columns: tuple[str, ...]
    rows: int
    low: str | None
    high: str | None

    def holds(self, customers: "Range") -> bool:
        return not (
            (self.high is not None and customers.low is not None and self.high < customers.low)
            or (self.low is not None and customers.high is not None and self.low >= customers.high)
        )

    def source(self, options: str = "", *further: str) -> str:
        """SQL: the file with columns c0, c1, ..., because DuckDB renames columns that differ only in case."""
        names = [*(f"c{place}" for place in range(len(self.columns))), *further]
        return f"{parquet(self.file, options=options)} AS part({', '.join(names)})"

    def column(self, name: str, missing: str = "NULL") -> str:
        return f"c{self.columns.index(name)}" if name in self.columns else missing


@dataclass(frozen=True)
class Range:
    """Customers with low <= user_id < high; None means unbounded."""

    number: int
    low: str | None
    high: str | None


@dataclass(frozen=True)
class Log:
    """The parts, in their order, and the further columns that expressions read."""

    parts: tuple[Part, ...]
    further: tuple[str, ...]
    known: tuple[str, ...]
    """All further columns of the records."""

    @property
    def aliases(self) -> dict[str, str]:
        """Column -> alias of the column in an expression."""
        return ALIASES | {name: f"{name}#{place}" for place, name in enumerate(self.further)}


def open_log(spec: FeaturesConfig, files: Sequence[Path]) -> Log:
    """Open the parts `files`, in order. Raises FeatureError when a column that an expression reads has
    different types in two parts, or when a column has the name of a computed one."""
    parts: list[Part] = []
    types: dict[str, pa.DataType] = {}
    wanted = columns_read(spec) | {"amount", "quantity"}
    known: dict[str, None] = {}
    for file in files:
        metadata = pq.read_metadata(file)
        schema = metadata.schema.to_arrow_schema()
        known |= dict.fromkeys(schema.names)
        for field in schema:
            if field.name in wanted and types.setdefault(field.name, field.type) != field.type:
                raise FeatureError(
                    f"{file}: column {field.name!r} is {field.type}, but {types[field.name]} in other parts; "
                    "run `churn ingest` again"
                )
        parts.append(Part(file, tuple(schema.names), metadata.num_rows, *_customers(metadata, schema)))
    if clash := sorted(COMPUTED & known.keys()):
        raise FeatureError(
            f"{files[0]}: column {clash[0]!r} has the name of one that is computed; leave it out of "
            "data.source.keep and types, or give it another name there by data.source.computed"
        )
    theirs = tuple(name for name in known if name not in LOG_COLUMNS)
    return Log(tuple(parts), tuple(name for name in theirs if name in wanted), theirs)


def ranges(connection: duckdb.DuckDBPyConnection, log: Log) -> list[Range]:
    """Ranges of about RANGE_ROWS rows. A customer is in one range, even with more rows."""
    if sum(part.rows for part in log.parts) <= RANGE_ROWS:
        return [Range(0, None, None)]
    every = min(SAMPLE_ROWS, RANGE_ROWS)
    sample = sorted(_sample(connection, log, every))
    cuts = sorted(set(sample[RANGE_ROWS // every :: RANGE_ROWS // every]))
    return [Range(number, low, high) for number, (low, high) in enumerate(pairwise([None, *cuts, None]))]


def merge(connection: duckdb.DuckDBPyConnection, log: Log, customers: Range) -> str:
    """SQL: the range's rows in order, as `user_id#`, `us#`, `is_return#` and the further columns.

    Several parts are sorted into a temporary table `merged`. A single part is already sorted.
    """
    parts = [part for part in log.parts if part.holds(customers)] or log.parts[:1]
    if len(parts) == 1:
        return _rows(log, parts[0], customers)
    union = " UNION ALL ".join(
        f'SELECT *, {number} AS "part#" FROM ({_rows(log, part, customers)})'
        for number, part in enumerate(parts)
    )
    connection.execute(
        f'CREATE TEMP TABLE merged AS SELECT * FROM ({union}) ORDER BY "user_id#", "us#", "part#", "place#"'
    )
    return "SELECT * FROM merged"


def with_gaps(log: Log, rows: str, over: Over) -> str:
    """SQL: rows of one kind with `timestamp#`, `gap_days#`, and `unsorted#`, true for a row that is out of
    order.

    `lag` without ORDER BY streams over the rows in their order. It sorts and buffers nothing, and equal
    timestamps stay in their order.
    """
    further = "".join(f", {quoted(log.aliases[name])}" for name in (*_GIVEN, *log.further))
    return f"""
        SELECT "user_id#", make_timestamp("us#") AS "timestamp#", "is_return#"{further},
               CASE WHEN "user_id#" = before_id THEN ("us#" - before_us) / {_DAY_US} END AS "gap_days#",
               coalesce("user_id#" < before_id OR ("user_id#" = before_id AND "us#" < before_us), false)
                 AS "unsorted#"
        FROM (SELECT *, lag("user_id#") OVER () AS before_id, lag("us#") OVER () AS before_us
              FROM (SELECT * FROM ({rows}) WHERE {_KINDS[over]}))"""


_GIVEN = ("amount", "quantity")


def _rows(log: Log, part: Part, customers: Range) -> str:
    user = part.column("user_id")
    low = f"{user} >= {literal(customers.low)}" if customers.low is not None else "true"
    high = f"{user} < {literal(customers.high)}" if customers.high is not None else "true"
    columns = {
        "user_id#": user,
        "us#": f"epoch_us({part.column('timestamp')})",
        "is_return#": f"coalesce({part.column('is_return', 'false')}, false)",
        **{log.aliases[name]: part.column(name) for name in (*_GIVEN, *log.further)},
        "place#": "place",
    }
    listed = ", ".join(f"{value} AS {quoted(alias)}" for alias, value in columns.items())
    return f"SELECT {listed} FROM {part.source(', file_row_number = true', 'place')} WHERE {low} AND {high}"


def _customers(metadata: pq.FileMetaData, schema: pa.Schema) -> tuple[str | None, str | None]:
    """The first and the last customer by the file's statistics."""
    if "user_id" not in metadata.schema.names or metadata.num_rows == 0:
        return None, None
    place = metadata.schema.names.index("user_id")
    found = [metadata.row_group(group).column(place).statistics for group in range(metadata.num_row_groups)]
    if any(one is None or not one.has_min_max for one in found):
        return None, None
    return min(str(one.min) for one in found), max(str(one.max) for one in found)


def _sample(connection: duckdb.DuckDBPyConnection, log: Log, every: int) -> Iterator[str]:
    """The customer of every `every`-th row, counted over all parts."""
    before = 0
    for part in log.parts:
        yield from (
            str(user)
            for (user,) in connection.execute(
                f"SELECT {part.column('user_id')} FROM {part.source(', file_row_number = true', 'place')} "
                f"WHERE (place + {before}) % {every} = {every - 1}"
            ).fetchall()
        )
        before += part.rows

"""The rows of the log in Spark: read from the Parquet parts, divided and sorted by customer, with their gaps.

Views with the names and columns of the tables that features/purchases.py loads, so its queries read them.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from features.log import Log, Part
from features.purchases import table_of
from features.reads import quoted
from features.spark.dialect import ROW_IN_ORDER, rendered
from features.spec import Over

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_DAY_US = 86_400_000_000.0
_GIVEN = ("amount", "quantity")
_CUSTOMER, _US, _RETURN = '"user_id#"', '"us#"', '"is_return#"'
_ORDER = (_CUSTOMER, _US, '"part#"', '"place#"')
"""A customer's rows are ordered by time, and those of equal time as in the records."""
_VIEWS: dict[Over, tuple[str, str]] = {
    "purchases": ("own_gap", f"NOT {_RETURN}"),
    "returns": ("own_gap", _RETURN),
    "all": ("gap", "true"),
}
"""Of each kind: the column with its gaps, and the condition for its rows."""


def create_views(
    session: "SparkSession", log: Log, kinds: Sequence[Over], folder: str, partitions: int
) -> "DataFrame":
    """Create a view for each of `kinds`; return the stored rows, to be released with `unpersist`.

    `folder`: path or URI of the folder with the parts of `log`. The rows of a customer are in one partition.
    """
    from pyspark import StorageLevel

    source = _source(session, log, folder).repartition(partitions, _column(_CUSTOMER))
    source.createOrReplaceTempView("source")
    rows = session.sql(rendered(_with_gaps(log, kinds)))
    rows = rows.sortWithinPartitions(*map(_column, _ORDER)).drop(*(name.strip('"') for name in _ORDER[2:]))
    rows.persist(StorageLevel.MEMORY_AND_DISK)
    rows.createOrReplaceTempView("rows")
    for kind in kinds:
        gap, condition = _VIEWS[kind]
        session.sql(rendered(_select(log, gap, condition))).createOrReplaceTempView(table_of(kind))
    return rows


def _source(session: "SparkSession", log: Log, folder: str) -> "DataFrame":
    """All parts under the aliases of their columns, with the part and the place of each row."""
    alike = defaultdict(list)  # one scan for parts with the same columns, since deliveries may be many
    for part in log.parts:
        alike[frozenset(part.columns)].append(part)
    scans = [_scan(session, log, parts, folder) for parts in alike.values()]
    first, *others = scans
    for other in others:
        first = first.unionByName(other)
    return first


def _scan(session: "SparkSession", log: Log, parts: Sequence[Part], folder: str) -> "DataFrame":
    from pyspark.sql import functions as F

    # Spark would read brackets or a star in the path of a workspace as a pattern
    escaped = re.sub(r"([][{}*?\\])", r"\\\1", folder)
    read = session.read.parquet(*(f"{escaped}/{part.file.name}" for part in parts))

    def column(name: str, missing: "Column") -> "Column":
        return F.col(f"`{name.replace('`', '``')}`") if name in parts[0].columns else missing

    columns = {
        "user_id#": column("user_id", F.lit(None)),
        "us#": F.unix_micros(column("timestamp", F.lit(None))),
        "is_return#": F.coalesce(column("is_return", F.lit(False)), F.lit(False)),
        **{log.aliases[name]: column(name, F.lit(None)) for name in (*_GIVEN, *log.further)},
        "part#": F.col("_metadata.file_name"),  # parts are read in the order of their names
        "place#": F.col("_metadata.row_index"),
    }
    return read.select(*(value.alias(alias) for alias, value in columns.items()))


def _with_gaps(log: Log, kinds: Sequence[Over]) -> str:
    """SQL: the rows with the times since the row before, of the same kind and of any kind."""
    in_order = f"ORDER BY {', '.join(_ORDER[1:])}"
    of_customer, of_kind = f"PARTITION BY {_CUSTOMER}", f"PARTITION BY {_CUSTOMER}, {_RETURN}"
    only_purchases = kinds == ["purchases"]  # then one window, and one sort, are enough
    gaps = {
        "own_gap": f"{of_customer if only_purchases else of_kind} {in_order}",
        **({"gap": f"{of_customer} {in_order}"} if "all" in kinds else {}),
    }
    listed = [f"({_US} - lag({_US}) OVER ({window})) / {_DAY_US} AS {name}" for name, window in gaps.items()]
    return f"""
        SELECT {", ".join(_ORDER)}, {_RETURN}{_further(log)}, {", ".join(listed)},
               row_number() OVER ({of_customer} {in_order}) AS {quoted(ROW_IN_ORDER)}
        FROM source WHERE {f"NOT {_RETURN}" if only_purchases else "true"}"""


def _select(log: Log, gap: str, condition: str) -> str:
    return f"""
        SELECT {_CUSTOMER}, make_timestamp({_US}) AS "timestamp#", {_RETURN}{_further(log)},
               {gap} AS "gap_days#", false AS "unsorted#", {quoted(ROW_IN_ORDER)}
        FROM rows WHERE {condition}"""


def _further(log: Log) -> str:
    return "".join(f", {quoted(log.aliases[name])}" for name in (*_GIVEN, *log.further))


def _column(name: str) -> "Column":
    from pyspark.sql import functions as F

    return F.col(f"`{name.strip(chr(34))}`")

"""Reads the records that `ingest` wrote: a folder of Parquet parts.

Each part is sorted by `user_id`, time and position in the source. The base's parts hold ranges of customers
in ascending order. Each later delivery is a separate part, so a customer can be in several parts.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import DataError
from core.workspace import Workspace


def parts(files: Workspace) -> list[Path]:
    """The parts of the current version: those of the base, then the deliveries in their order.

    Raises DataError when there is none.
    """
    return parts_of(files.records)


def parts_of(records: Path) -> list[Path]:
    """The parts in the folder `records` of any version. Raises DataError when there is none."""
    found = sorted(records.glob("*.parquet")) if records.is_dir() else [records]
    if not found or not found[0].is_file():
        raise DataError(f"{records}: no records are there; run `churn ingest`")
    return found


def read(records: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows in memory, sorted by customer and time. Rows of equal times are in the order of the parts.

    Raises DataError when there are no records.
    """
    found = parts_of(records)
    tables = [pq.read_table(part, partitioning=None) for part in found]
    table = pa.concat_tables(tables)
    if any(part.name.startswith("delivery") for part in found):
        table = table.take(pa.array(_order(table)))
    return table if columns is None else table.select(list(columns))


def moment_of(names: Sequence[str]) -> str:
    """The name of the column that holds the time of a row."""
    return "timestamp" if "timestamp" in names else "event_timestamp"


def _order(table: pa.Table) -> Sequence[int]:
    keys = table.select(["user_id", moment_of(table.column_names)]).to_pandas()
    # a stable sort preserves the order of the parts for equal times
    order: Sequence[int] = keys.sort_values(list(keys.columns), kind="stable").index.to_numpy()
    return order

"""The records that `ingest` wrote, for whoever reads them: a folder of Parquet parts.

Each part is sorted by `user_id`, time and place in the source. The base's parts hold ranges of customers
in ascending order; each later delivery is a part of its own, so a customer can be in several parts.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import DataError
from data.workspace import Workspace


def parts(files: Workspace) -> list[Path]:
    """The parts of the current version, the base's first, then the deliveries in their order."""
    return parts_of(files.records)


def parts_of(records: Path) -> list[Path]:
    """The same of any version's folder. Raises DataError when there is none."""
    found = sorted(records.glob("*.parquet")) if records.is_dir() else [records]
    if not found or not found[0].is_file():
        raise DataError(f"{records}: no records are there; run `churn ingest`")
    return found


def read(records: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows in memory, by customer and time; of equal times the row that came first."""
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
    # stable, so that rows of equal times stay in the order of the parts
    order: Sequence[int] = keys.sort_values(list(keys.columns), kind="stable").index.to_numpy()
    return order

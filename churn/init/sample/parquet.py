"""Reads a sample of Parquet files: row groups of the beginning, the middle and the end."""

import uuid
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from churn.init.belief import Notes
from churn.init.sample.files import Files
from churn.init.sample.sample import MOST_ROWS, Sample


def read_parquet(files: Files, notes: Notes) -> Sample:
    chosen, paths = files.sampled, files.paths
    root = files.path if files.is_folder else paths[0]
    tables, total, whole = [], 0, len(chosen) == len(paths)
    for path in chosen:
        with files.filesystem.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            total += parquet.metadata.num_rows
            budget = MOST_ROWS if len(chosen) == 1 else max(5_000, 2 * MOST_ROWS // len(chosen))
            table, complete = _groups(parquet, budget)
        whole &= complete
        tables.append(_with_partitions(_readable(table, notes), path, root))
    table = pa.concat_tables(tables, promote_options="permissive")
    looked = (
        f"{table.num_rows:,} rows of {len(chosen)} of {len(paths)} files"
        if len(paths) > 1
        else (f"all {total:,} rows" if whole else f"{table.num_rows:,} of {total:,} rows")
    )
    rows = total if len(chosen) == len(paths) else None
    return Sample(files.uri, "parquet", table, whole, looked, rows)


def _groups(parquet: Any, budget: int) -> tuple[pa.Table, bool]:
    """At most `budget` rows from the first, the middle and the last row group; whether these are all rows."""
    groups = parquet.metadata.num_row_groups
    if parquet.metadata.num_rows <= budget:
        return parquet.read(), True
    chosen = sorted({0, groups // 2, groups - 1})
    share = budget // len(chosen)
    batches: list[pa.RecordBatch] = []
    for group in chosen:
        left = share
        for batch in parquet.iter_batches(min(share, 65_536), row_groups=[group]):
            batches.append(batch.slice(0, left))
            left -= batch.num_rows
            if left <= 0:
                break
    return pa.Table.from_batches(batches), False


def _readable(table: pa.Table, notes: Notes) -> pa.Table:
    """The table with plain types only. Nested columns are left out, of which a reason is noted."""
    for name in list(table.column_names):
        column = table[name]
        kind = column.type
        if isinstance(kind, pa.BaseExtensionType):
            column, kind = (
                pa.chunked_array([c.storage for c in column.chunks], kind.storage_type),
                kind.storage_type,
            )
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        elif pa.types.is_fixed_size_binary(kind) and kind.byte_width == 16:
            texts = [None if v is None else str(uuid.UUID(bytes=v)) for v in column.to_pylist()]
            column = pa.chunked_array([pa.array(texts, pa.string())])
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            column = column.cast(pa.binary()).cast(pa.string())
        elif pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            column = column.cast(pa.string())
        elif pa.types.is_nested(kind) or pa.types.is_duration(kind) or pa.types.is_null(kind):
            notes.left_out[name] = f"its type is {kind}"
            table = table.drop_columns([name])
            continue
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _with_partitions(table: pa.Table, path: str, root: str) -> pa.Table:
    """The table with the columns that only a Hive path contains: `order_date=2023-01-01/`."""
    try:
        parts = PurePosixPath(path).relative_to(root.rstrip("/")).parts[:-1]
    except ValueError:
        return table
    for part in parts:
        name, equals, value = part.partition("=")
        if equals and name not in table.column_names:
            known = None if value == "__HIVE_DEFAULT_PARTITION__" else value
            table = table.append_column(name, pa.array([known] * table.num_rows, pa.string()))
    return table

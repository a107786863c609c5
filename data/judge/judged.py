"""The rows that expectations check: a few columns at a time, and customers as integer codes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.mask import as_one_array
from data.prepare.parts import RECORDS, Part


@dataclass(frozen=True)
class Judged:
    """Rows to check. Only the columns that an expectation reads are in memory at a time."""

    schema: pa.Schema
    rows: int
    tables: Callable[[Sequence[str]], Iterator[pa.Table]]
    """Yields the columns of these names in batches of rows. Identifiers are codes, equal for equal ones."""
    all_rows: int | None = None
    """For a delivery: the rows of the whole table, on which expectations on the row count are checked."""


def judged(version: Path, parts: Sequence[Part], schema: pa.Schema, all_rows: int | None = None) -> Judged:
    """The rows of `parts` of the folder `version`. `all_rows`: see `Judged`."""
    paths = [version / RECORDS / part.name for part in parts]
    shown = schema.set(schema.get_field_index("user_id"), pa.field("user_id", pa.int32()))

    def tables(names: Sequence[str]) -> Iterator[pa.Table]:
        customers = 0
        for path in paths:
            table = pq.read_table(path, columns=list(names), read_dictionary=["user_id"], partitioning=None)
            if "user_id" in names:
                codes, customers = _codes(table["user_id"], customers)
                table = table.set_column(table.column_names.index("user_id"), "user_id", [codes])
            yield table

    return Judged(shown, sum(part.rows for part in parts), tables, all_rows)


def _codes(column: pa.ChunkedArray, first: int) -> tuple[pa.Array, int]:
    """Equal codes for equal customers. A part of the base holds all of a customer's rows in the base."""
    encoded = as_one_array(column.unify_dictionaries())
    codes = encoded.indices.to_numpy().astype(np.int32) + np.int32(first)
    return pa.array(codes), first + len(encoded.dictionary)

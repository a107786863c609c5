"""Reads parts of the records for the expectations: a few columns at a time, customers as integer codes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.judge.validate import Judged
from data.mask import as_one_array
from data.prepare.parts import RECORDS, Part


def judged(version: Path, parts: Sequence[Part], schema: pa.Schema, all_rows: int | None = None) -> Judged:
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

"""Takes parts of an older version into a new one: unchanged parts are linked, others are rewritten."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.prepare.hashes import Numbers
from data.prepare.parts import CUSTOMERS, INDEX, RECORDS, ROWS_A_PART, Part, write_part
from data.records.folder import moment_of

PART_FOLDERS = (RECORDS, INDEX, CUSTOMERS)


def link(file: Path, target: Path) -> None:
    """Link the file under a second name, or copy it where the file system does not support links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, target)
    except OSError:
        shutil.copy2(file, target)


def link_part(old: Path, new: Path, part: Part) -> Part:
    for folder in PART_FOLDERS:
        link(old / folder / part.name, new / folder / part.name)
    return part


def without_rows(old: Path, new: Path, part: Part, dropped: np.ndarray[Any, Any]) -> list[Part]:
    """Write the part without the rows that are True in `dropped` [rows]; no part when no row is left."""
    records, index = (
        _read(old / folder / part.name).filter(pa.array(~dropped)) for folder in (RECORDS, INDEX)
    )
    for folder in PART_FOLDERS:
        (new / folder).mkdir(parents=True, exist_ok=True)
    if not records.num_rows:
        return []
    return [write_part(new, part.name, records, index, buyers(records))]


def compact(old: Path, new: Path, parts: Sequence[Part]) -> list[Part]:
    """Merge all parts into a new base: one part, or more, for each range of customers of the old base.

    Rows of the same customer and time stay in the order of the parts. One range is in memory at a time.
    """
    for folder in PART_FOLDERS:
        (new / folder).mkdir(parents=True, exist_ok=True)
    base = [part for part in parts if part.name.startswith("base")] or list(parts[:1])
    others = [_Sorted(old, part) for part in parts if part not in base]
    ends: list[str | None] = [_first_customer(old, part) for part in base[1:]]
    written: list[Part] = []
    for part, end in zip(base, [*ends, None], strict=True):
        whole = [_read(old / folder / part.name) for folder in (RECORDS, INDEX)]
        more = [other.until(end) for other in others]
        records = pa.concat_tables([whole[0], *(table for table, _ in more)])
        index = pa.concat_tables([whole[1], *(table for _, table in more)])
        order = _order(records)
        for rows in _cut(records["user_id"].take(order)):
            name = f"base-{len(written):05d}.parquet"
            chosen = records.take(order[rows])
            written.append(write_part(new, name, chosen, index.take(order[rows]), buyers(chosen)))
    return written


def buyers(records: pa.Table) -> Numbers:
    """The upper halves of the masks of customers with a purchase, ascending."""
    if "is_return" in records.column_names:
        records = records.filter(pc.invert(records["is_return"]))
    halves = [int(mask[2:18], 16) for mask in records["user_id"].unique().to_pylist()]
    return np.unique(np.array(halves, np.uint64))


class _Sorted:
    """A part of a delivery, which is read in ascending ranges of customers."""

    def __init__(self, version: Path, part: Part) -> None:
        self._files = [pq.ParquetFile(version / folder / part.name) for folder in (RECORDS, INDEX)]
        users = _read(version / RECORDS / part.name, ["user_id"])["user_id"]
        self._users = users.dictionary_encode().unify_dictionaries()
        self._taken = 0

    def until(self, end: str | None) -> tuple[pa.Table, pa.Table]:
        start, stop = self._taken, len(self._users)
        if end is not None:
            dictionary = self._users.chunk(0).dictionary if stop else pa.array([], pa.string())
            codes = np.concatenate([chunk.indices.to_numpy() for chunk in self._users.chunks])
            below = np.asarray(pc.less(dictionary, end))
            stop = int(below[codes].sum())
        self._taken = max(start, stop)
        records, index = (_rows(file, start, self._taken) for file in self._files)
        return records, index


def _rows(file: pq.ParquetFile, start: int, stop: int) -> pa.Table:
    """Rows `start` to `stop` (exclusive). Only the row groups that contain them are read."""
    groups: list[int] = []
    first = offset = 0
    for number in range(file.num_row_groups):
        end = first + file.metadata.row_group(number).num_rows
        if first < stop and end > start:
            offset = offset if groups else first
            groups.append(number)
        first = end
    if not groups:
        return file.schema_arrow.empty_table()
    return file.read_row_groups(groups).slice(start - offset, stop - start)


def _read(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    return pq.read_table(file, columns=columns, partitioning=None)


def _first_customer(version: Path, part: Part) -> str:
    users = pq.ParquetFile(version / RECORDS / part.name).read_row_group(0, columns=["user_id"])
    return str(users["user_id"][0].as_py())


def _order(records: pa.Table) -> pa.Array:
    """The stable sort order by customer and time."""
    codes, _ = pd.factorize(records["user_id"].to_pandas(), sort=True)
    times = records[moment_of(records.column_names)].cast(pa.int64()).to_numpy()
    return pa.array(np.lexsort((times, codes)))


def _cut(users: pa.ChunkedArray) -> Iterator[slice]:
    """Slices of about ROWS_A_PART rows that do not divide a customer."""
    rows, start = len(users), 0
    while start < rows:
        stop = start + ROWS_A_PART
        if rows - stop < ROWS_A_PART:
            stop = rows
        while stop < rows and users[stop].as_py() == users[stop - 1].as_py():
            stop += 1
        yield slice(start, stop)
        start = stop

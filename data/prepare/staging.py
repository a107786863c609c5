"""Buffers rows on disk, divided into ranges of a hash, so that each range fits into memory later."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

BUCKETS = 64
"""Number of ranges, of equal width. A hash fills them evenly: 70 million rows give ranges of 1.1 million."""
BYTES_IN_MEMORY = 256_000_000
"""Buffered bytes above which rows are written to disk. A smaller source is not written to disk."""

COMPRESSION: str | None = "lz4"


class Buckets:
    """Divides added tables into ranges. Each range returns its rows in the order in which they were added."""

    def __init__(self, folder: Path, key: str) -> None:
        """`key` is the name of the uint64 column whose upper bits choose the range."""
        self._folder, self._key = folder, key
        self._waiting: list[pa.Table] = []
        self._bytes = 0
        self._files: list[pa.RecordBatchStreamWriter] = []

    def add(self, table: pa.Table) -> None:
        """Add a table. All tables have the same schema."""
        self._waiting.append(table)
        self._bytes += table.nbytes
        if self._bytes > BYTES_IN_MEMORY:
            self._write()

    def ranges(self) -> Iterator[pa.Table]:
        """Yield the ranges in ascending order, without empty ones. The file of a yielded range is removed."""
        if not self._files:
            yield from self._in_memory()
            return
        self._write()
        for file in self._files:
            file.close()
        for number in range(BUCKETS):
            path = self._path(number)
            with pa.OSFile(str(path)) as source, pa.ipc.open_stream(source) as reader:
                table = reader.read_all()
            path.unlink()
            if table.num_rows:
                yield table

    def _in_memory(self) -> Iterator[pa.Table]:
        if self._waiting:
            table = pa.concat_tables(self._waiting)
            self._waiting.clear()
            yield table

    def _write(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting, self._bytes = [], 0
        if not self._files:
            self._files = [self._open(number, table.schema) for number in range(BUCKETS)]
        bucket = (table[self._key].to_numpy() >> np.uint64(64 - BUCKETS.bit_length() + 1)).astype(np.uint8)
        order = np.argsort(bucket, kind="stable")
        edges = np.searchsorted(bucket[order], np.arange(BUCKETS + 1))
        for number, file in enumerate(self._files):
            rows = order[edges[number] : edges[number + 1]]
            if len(rows):
                file.write_table(table.take(pa.array(rows)).combine_chunks())

    def _open(self, number: int, schema: pa.Schema) -> pa.RecordBatchStreamWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        options = pa.ipc.IpcWriteOptions(compression=COMPRESSION)
        return pa.ipc.new_stream(str(self._path(number)), schema, options=options)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:03d}.arrow"

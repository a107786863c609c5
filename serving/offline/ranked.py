"""Writes scores as a ranked list. DuckDB sorts them on disk: memory does not grow with their number."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from core.errors import ConfigError, ServingError

BATCH = 50_000
"""Rows that are read back, ranked and written at a time."""

FORMATS = (".parquet", ".csv")


@dataclass(frozen=True)
class Ranked:
    rows: int
    """Rows in the file."""
    scored: int


def check_target(out: Path) -> None:
    """Raises ConfigError for an unsupported format, or when the folder does not exist."""
    if out.suffix not in FORMATS:
        raise ConfigError(f"--out {out}: end it in {' or '.join(FORMATS)}")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: its folder is not there; make it first")


def write_ranked(
    batches: Iterable[pa.RecordBatch],
    out: Path,
    top: int | None = None,
    memory_limit: str = "256MB",
    finish: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda batch: batch,
    private: bool = False,
    metadata: Mapping[bytes, bytes] | None = None,
    may_be_empty: bool = False,
) -> Ranked:
    """Write `batches` to `out` in descending order of `expected_value`, then by user_id, with their `rank`.

    Null expected values are last. `top`: write only so many rows. `finish` may add columns to the written
    rows. `out` is replaced atomically, with mode 600 when it is `private`; temporary files are in a folder of
    mode 700 beside it. `metadata`: of a Parquet file. Raises ServingError when there is no row, unless it
    `may_be_empty`, and when memory and disk are too small for the sort.
    """
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        scored = _spill(batches, Path(scratch) / "scores.parquet", may_be_empty)
        partial = Path(scratch) / out.name
        try:
            rows = _write(map(finish, _sorted(Path(scratch), top, memory_limit)), partial, metadata)
        except duckdb.Error as error:
            raise ServingError(f"sorting {scored:,} scores: {' '.join(str(error).split())}") from None
        if private:
            partial.chmod(0o600)
        partial.replace(out)
    return Ranked(rows, scored)


def _spill(batches: Iterable[pa.RecordBatch], file: Path, may_be_empty: bool) -> int:
    rows = 0
    writer: Any = None
    try:
        for batch in batches:
            writer = writer or pq.ParquetWriter(file, batch.schema, compression="zstd")
            writer.write_batch(batch)
            rows += batch.num_rows
    finally:
        if writer is not None:
            writer.close()
    if writer is None or (not rows and not may_be_empty):
        raise ServingError("there is no customer to score; build the features of another moment")
    return rows


def _sorted(scratch: Path, top: int | None, memory_limit: str) -> Iterator[pa.RecordBatch]:
    """The rows in order, ranked from 1."""
    limit = "" if top is None else f"LIMIT {int(top)}"
    source = str(scratch / "scores.parquet").replace("'", "''")
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "temp_directory": str(scratch / "spill"),
        "threads": 1,
        "preserve_insertion_order": False,
    }
    with duckdb.connect(":memory:", config=settings) as connection:
        found = connection.sql(
            f"SELECT * FROM read_parquet('{source}') "  # noqa: S608  our own path
            f"ORDER BY expected_value DESC NULLS LAST, user_id {limit}"
        ).to_arrow_reader(BATCH)
        assert found is not None  # a SELECT always has a result
        first = 1
        for batch in _or_empty(found):
            ranks = pa.array(np.arange(first, first + batch.num_rows), pa.int64())
            yield pa.RecordBatch.from_arrays([ranks, *batch.columns], ["rank", *batch.schema.names])
            first += batch.num_rows


def _or_empty(found: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Its batches; at least one, which has the columns."""
    batch: pa.RecordBatch | None = next(iter(found), None)
    yield pa.RecordBatch.from_pylist([], found.schema) if batch is None else batch
    yield from found


def _write(batches: Iterator[pa.RecordBatch], file: Path, metadata: Mapping[bytes, bytes] | None) -> int:
    first = next(batches)
    writer: Any
    if file.suffix == ".csv":
        writer = pa_csv.CSVWriter(file, first.schema)
    else:
        schema = first.schema if metadata is None else first.schema.with_metadata(dict(metadata))
        writer = pq.ParquetWriter(file, schema, compression="zstd")
    rows = 0
    with writer:
        batch: pa.RecordBatch | None = first
        while batch is not None:
            writer.write_batch(batch)
            rows += batch.num_rows
            batch = next(batches, None)
    return rows

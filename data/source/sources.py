"""Opens a source: the CDNOW log in an installed wheel, or a table in files or in PostgreSQL."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pyarrow as pa

from core.errors import DataError
from data.cell.expression import parse
from data.config import CdnowSource, DataConfig, TableSource
from data.source.csv_files import read_csv
from data.source.excel_files import read_excel
from data.source.parquet_files import read_parquet
from data.source.postgres_table import read_postgres
from data.source.readers import Wanted, data_errors, public_uri, rows_a_chunk
from data.source.source_files import source_files

CDNOW = TableSource(
    kind="csv",
    uri="Lifetimes/CDNOW_master.txt",
    columns={
        "user_id": "customer_id",
        "timestamp": "date",
        "amount": "dollar_value",
        "quantity": "number_of_cds",
    },
    user_id_type="integer",
    duplicates="keep",  # equal rows are separate orders of one day
    options={"sep": r"\s+"},
)
CDNOW_SHA256 = "eff6889ed364c5199d6eacbbeb7a6d559971df4406ac876f322c373f00a072ef"

LARGE_CHUNK_ROWS = 10_000
"""Rows from which a chunk is returned without waiting for further chunks."""


def as_table(config: DataConfig) -> TableSource:
    """The source as a table with a mapping; for CDNOW the built-in mapping."""
    return CDNOW if isinstance(config.source, CdnowSource) else config.source


class Reading:
    """A source that is read once, from the beginning to the end."""

    def __init__(
        self, source: TableSource, wanted: Wanted, limit: int | None = None, sha256: str | None = None
    ) -> None:
        self._source, self._wanted, self._limit = source, wanted, limit
        self._expected = sha256
        self._digests: list[str] | None = None if limit is not None else []
        self._sha256 = ""

    @property
    def sha256(self) -> str:
        """The sha256 of the file's bytes; for several files, of their digests in the order of their names.
        Empty until all chunks are read, and for a source of which only a part is read."""
        return self._sha256

    def chunks(self) -> Iterator[pa.Table]:
        """Yield tables of one schema with at most 500,000 rows; fewer for a wide table.

        Cells of CSV and Excel are strings, others have their Arrow types. Raises DataError for a source that
        is missing, unreadable, empty, or lacks a column that the config names.
        """
        uri, empty = public_uri(self._source), True
        with data_errors(uri):
            for chunk in _combined(_first(_tables(self._source, self._wanted, self._digests), self._limit)):
                empty = False
                yield chunk
        if empty:
            raise DataError(f"{uri}: the table is empty; give data.source.uri a table with rows")
        if self._digests is not None:
            self._sha256 = _joined(self._digests)
            if self._expected not in (None, self._sha256):
                raise DataError(
                    f"{uri}: sha256 is {self._sha256}, not the known one; reinstall Lifetimes==0.11.3"
                )


def open_source(config: DataConfig, further: Collection[str] = (), limit: int | None = None) -> Reading:
    """Open the source with the columns that the config or `further` names, under the source's names.

    `limit` restricts it to the first rows; default: all rows.
    """
    if isinstance(config.source, CdnowSource):
        source = CDNOW.model_copy(update={"uri": str(_cdnow_file())})
        return Reading(source, _wanted(CDNOW, further), limit, CDNOW_SHA256)
    return Reading(config.source, _wanted(config.source, further), limit)


def _wanted(source: TableSource, further: Collection[str]) -> Wanted:
    names = {theirs: f"data.source.columns.{ours}" for ours, theirs in reversed(source.columns.items())}
    settings = {f"computed.{name}": text for name, text in source.computed.items()}
    settings |= {name: text for name, text in (("where", source.where), ("returns", source.returns)) if text}
    for setting, text in settings.items():
        ours = ("amount", "quantity") if setting == "returns" else ()
        read = {name: f"data.source.{setting}" for name in sorted(parse(text).columns) if name not in ours}
        names = {**read, **names}
    declared = dict.fromkeys(source.keep, "data.source.keep")
    declared |= {name: f"data.source.types.{name}" for name in source.types}
    for name, setting in {**dict.fromkeys(further, "features"), **declared}.items():
        if name not in source.computed:
            names.setdefault(name, setting)
    return Wanted(names)


def _tables(source: TableSource, wanted: Wanted, digests: list[str] | None) -> Iterator[pa.Table]:
    if source.kind == "postgres":
        return _postgres_tables(source, wanted, digests)
    read = {"csv": read_csv, "parquet": read_parquet, "excel": read_excel}[source.kind]
    return read(source_files(source), source, wanted, digests)


def _postgres_tables(source: TableSource, wanted: Wanted, digests: list[str] | None) -> Iterator[pa.Table]:
    digest = hashlib.sha256()
    yield from read_postgres(source, wanted, None if digests is None else digest.update)
    if digests is not None:
        digests.append(digest.hexdigest())


def _first(tables: Iterator[pa.Table], rows: int | None) -> Iterator[pa.Table]:
    """The first `rows` rows, or all. Nothing is read after them."""
    left = rows
    for table in tables:
        wanted = table.slice(0, left)
        if wanted.num_rows:
            yield wanted
        if left is not None and (left := left - wanted.num_rows) == 0:
            return


def _combined(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Combine chunks of many small files. No chunk exceeds the maximum size of a chunk of one file."""
    waiting: list[pa.Table] = []
    for table in tables:
        rows = sum(t.num_rows for t in waiting) + table.num_rows
        if waiting and rows > rows_a_chunk(table.num_columns):
            yield pa.concat_tables(waiting)
            waiting = []
        waiting.append(table)
        if table.num_rows >= LARGE_CHUNK_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _joined(digests: Sequence[str]) -> str:
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def state(config: DataConfig) -> list[str]:
    """Detects whether the source has changed, without reading it: one mark per file, from its file system.
    A database has none, so its mark contains the current time and always differs."""
    source = as_table(config)
    with data_errors(public_uri(source)):
        if isinstance(config.source, CdnowSource):
            source = CDNOW.model_copy(update={"uri": str(_cdnow_file())})
        if source.kind == "postgres":
            return [f"{public_uri(source)} {source.query or source.table} {datetime.now(UTC).isoformat()}"]
        return [f"{file.path} {file.filesystem.ukey(file.path)}" for file in source_files(source)]


def _cdnow_file() -> Path:
    """The data file of the wheel. Its code is never imported, because it does not support this Python."""
    try:
        carried = distribution("Lifetimes").files or []
    except PackageNotFoundError:
        raise DataError(
            "the CDNOW log is part of the package Lifetimes: pip install Lifetimes==0.11.3"
        ) from None
    for file in carried:
        if file.name == "CDNOW_master.txt":
            return Path(str(file.locate()))
    raise DataError("the installed Lifetimes has no CDNOW_master.txt; reinstall Lifetimes==0.11.3")

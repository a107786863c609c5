"""The prediction log as Parquet files: `<folder>/date=YYYY-MM-DD/<time>-<random>.parquet`.

Records are first appended to a spool, an Arrow stream beside the segments, which remains when the process is
killed. When the segment is due, it is written under a temporary name, synced and renamed, and the spool is
removed. So readers only find complete segments, and the next worker (or `complete`) makes a segment of the
spool of a killed one. A worker locks its spool: one that can be locked belongs to a worker that has ended.
"""

import fcntl
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

SEGMENT_ROWS = 50_000
SPOOL, TEMPORARY, SEGMENT = ".spool", ".tmp", ".parquet"
UNREADABLE = ".unreadable"
"""Suffix of a spool that cannot be read. It is renamed, so that it does not stop the log at every start."""

log = logging.getLogger("churn.prediction_log")


class ParquetSegments:
    """A sink. A segment is closed `window_s` after its first record, or with SEGMENT_ROWS of them."""

    def __init__(
        self,
        folder: Path,
        window_s: float,
        segment_rows: int = SEGMENT_ROWS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._window_s, self._segment_rows = folder, window_s, segment_rows
        self._monotonic = monotonic
        self._schema: pa.Schema | None = None
        self._stem = ""
        self._spool: int | None = None
        self._spooled = 0
        self._due = 0.0
        self._batches: list[pa.RecordBatch] = []

    @property
    def lost(self) -> int:
        """None: accepted records are on the disk."""
        return 0

    def open(self, schema: "pa.Schema") -> None:
        import pyarrow.parquet  # noqa: F401  now, since it takes time while requests wait

        self._schema = schema
        self._folder.mkdir(parents=True, exist_ok=True)
        complete(self._folder)

    def write(self, batch: "pa.RecordBatch") -> None:
        assert self._schema is not None, "open comes first"
        if self._rows >= 2 * self._segment_rows:
            raise OSError("the segment cannot be closed")  # memory must not grow while the disk is full
        if self._spool is None:
            first = batch.column("time")[0].as_py()
            self._begin(first, self._schema)
        self._append(batch.serialize())
        self._batches.append(batch)

    def tick(self) -> None:
        if self._batches and (self._monotonic() >= self._due or self._rows >= self._segment_rows):
            self._seal()

    def close(self) -> None:
        if self._batches:
            self._seal()

    def abandon(self) -> None:
        """Leaves the spool without a lock; the next sink makes a segment of it when it is opened."""
        if self._spool is not None:
            os.close(self._spool)
        self._spool, self._batches = None, []

    @property
    def _rows(self) -> int:
        return sum(batch.num_rows for batch in self._batches)

    def _begin(self, first: datetime, schema: "pa.Schema") -> None:
        self._stem = f"{first.astimezone(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}"
        path = self._folder / f".{self._stem}{SPOOL}"
        spool = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(spool, fcntl.LOCK_EX)
        if not path.exists():  # a worker that started in between took it for an abandoned one
            os.close(spool)
            raise OSError(f"{path.name}: removed by another worker")
        self._spool, self._spooled = spool, 0
        try:
            self._append(schema.serialize())
        except OSError:
            self._spool = None
            os.close(spool)
            path.unlink(missing_ok=True)
            raise
        self._due = self._monotonic() + self._window_s

    def _append(self, content: "pa.Buffer") -> None:
        assert self._spool is not None
        view = memoryview(content)
        try:
            while view:
                view = view[os.write(self._spool, view) :]
        except OSError:
            os.ftruncate(self._spool, self._spooled)  # a partial message would make all later ones unreadable
            raise
        self._spooled += len(content)

    def _seal(self) -> None:
        assert self._spool is not None
        import pyarrow as pa

        _write(self._folder, self._stem, pa.Table.from_batches(self._batches))
        (self._folder / f".{self._stem}{SPOOL}").unlink(missing_ok=True)
        os.close(self._spool)
        self._spool, self._batches = None, []


def complete(folder: Path) -> int:
    """Makes segments of the spools of workers that have ended; returns the number of their records.

    An incomplete last message of a spool is not included. Spools of running workers are not changed. Raises
    OSError.
    """
    rows = 0
    for path in sorted(folder.glob(f".*{SPOOL}")):
        with _locked(path) as left:
            if not left:
                continue
            stem = path.name.removeprefix(".").removesuffix(SPOOL)
            if not _segment(folder, stem).exists():  # it exists if the worker was killed after the rename
                try:
                    table = _read(path)
                    if table is not None:
                        _write(folder, stem, table)
                        rows += table.num_rows
                except (ValueError, TypeError) as error:  # ArrowInvalid is a ValueError
                    log.error("%s: no segment can be made of it: %s", path.name, type(error).__name__)
                    path.replace(path.with_suffix(UNREADABLE))
                    continue
            (folder / f".{stem}{TEMPORARY}").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
    return rows


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether `path` exists and no other process has locked it; locks it until the end of the block."""
    try:
        spool = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(spool, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield path.exists()
    finally:
        os.close(spool)


def _read(path: Path) -> Any:
    """A pyarrow Table of the complete messages in a spool; None if it has no record."""
    import pyarrow as pa

    batches = []
    with pa.OSFile(str(path)) as file:
        try:
            for batch in pa.ipc.open_stream(file):
                batches.append(batch)  # noqa: PERF402  batches before an incomplete end are used
        except (pa.ArrowInvalid, OSError):
            pass  # the last message is incomplete
    return pa.Table.from_batches(batches) if batches else None


def _write(folder: Path, stem: str, table: Any) -> None:
    """Writes a segment so that it is complete on the disk as soon as it has its name."""
    import pyarrow.parquet as pq

    target, temporary = _segment(folder, stem), folder / f".{stem}{TEMPORARY}"
    new_day = not target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)
    if new_day:
        _sync_folder(folder)


def _segment(folder: Path, stem: str) -> Path:
    return folder / f"date={stem[:4]}-{stem[4:6]}-{stem[6:8]}" / f"{stem}{SEGMENT}"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

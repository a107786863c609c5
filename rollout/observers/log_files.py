"""The files of the prediction log (handlers/records/log.py), each row read once: closed segments, and spools
as they grow.

A spool is an Arrow stream that a worker appends to. It becomes a segment with the same rows in the same
order. The position in each file is remembered, so that a look reads only what is new.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from handlers.records.segments import SEGMENT, SPOOL

COLUMNS = ("request_id", "time", "variant", "user_id", "status", "overridden", "score", "decision")
FEATURE = "feature_"
"""The prefix of columns with features."""
OLDER = timedelta(minutes=15)
"""A segment is named after its first record. One that began so long before a window has no row of it."""


@dataclass
class _Position:
    """How much of a spool, or of the segment that it became, was read."""

    rows: int = 0
    bytes: int = 0
    schema: "pa.Schema | None" = None


class LogFiles:
    """`folder`: of the segments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._positions: dict[str, _Position] = {}
        self._done: set[str] = set()

    def __str__(self) -> str:
        return str(self.folder)

    def new_rows(self, since: datetime) -> Iterator[pa.Table]:
        """Rows since the last call, of files with records after `since` (on the workers' clock). Raises
        OSError and pyarrow.ArrowException."""
        oldest = since - OLDER
        for spool in sorted(self.folder.glob(f".*{SPOOL}")):
            stem = spool.name.removeprefix(".").removesuffix(SPOOL)
            if stem not in self._done and _begun(stem) >= oldest:
                yield from _appended(spool, self._positions.setdefault(stem, _Position()))
        for day in sorted(self.folder.glob("date=*")):
            if day.name < f"date={oldest:%Y-%m-%d}":
                continue
            for segment in sorted(day.glob(f"*{SEGMENT}")):
                stem = segment.name.removesuffix(SEGMENT)
                if stem in self._done:
                    continue
                if _begun(stem) >= oldest:
                    position = self._positions.pop(stem, _Position())
                    yield from _rest(segment, position.rows)
                self._done.add(stem)


def _appended(spool: Path, position: _Position) -> Iterator[pa.Table]:
    """The complete messages that were appended since the last look."""
    try:
        file = pa.OSFile(str(spool))
    except FileNotFoundError:
        return  # it has become a segment
    with file:
        file.seek(position.bytes)
        batches = []
        while True:
            try:
                message = pa.ipc.read_message(file)
                if position.schema is None:
                    position.schema = pa.ipc.read_schema(message)
                else:
                    batches.append(pa.ipc.read_record_batch(message, position.schema))
            except (EOFError, pa.ArrowInvalid, OSError):
                break  # the end, or a message that is still being written
            position.bytes = file.tell()
    if batches:
        table = pa.Table.from_batches(batches)
        position.rows += table.num_rows
        yield table


def _rest(segment: Path, read: int) -> Iterator[pa.Table]:
    """The rows of a segment after the first `read`."""
    with pq.ParquetFile(segment) as file:
        if file.metadata.num_rows > read:
            names = file.schema_arrow.names
            wanted = [name for name in names if name in COLUMNS or name.startswith(FEATURE)]
            yield file.read(columns=wanted).slice(read)


def _begun(stem: str) -> datetime:
    return datetime.strptime(stem[:15] + "+0000", "%Y%m%dT%H%M%S%z")

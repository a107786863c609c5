"""The connection to the SQLite file of Feast's online store: read-only, with a deadline for each read."""

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from handlers.store.deadline import remaining
from handlers.store.packed import quoted
from handlers.store.stored import UnknownLayout

COLUMNS = {"entity_key", "feature_name", "value", "event_ts"}
"""Columns of Feast's table that are read."""
CACHE_KIB = 131_072
"""Maximum size of the page cache. A customer takes about 7 KiB."""
STEPS_BETWEEN_CHECKS = 20_000
"""SQLite instructions between two checks of the deadline. 1,000 customers take about half a million."""
MAX_CUSTOMERS = 10_000
"""Customers per statement. More customers are read by several statements."""


class Database:
    """The file at `path`. The connection is opened anew when `path` names another file than before, because
    a deleted file stays readable.
    """

    def __init__(self, path: Path, table: str) -> None:
        """`table`: the name of Feast's table."""
        self._path = path
        self._table = quoted(table)
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._busy_ms = 0
        self._deadline = 0.0

    def connect(self, deadline: float) -> sqlite3.Connection:
        """The connection, whose statements are interrupted at `deadline` (of time.monotonic).

        TEXT is returned as bytes. Raises FeatureStoreUnavailable after the deadline, sqlite3.Error or OSError
        when the file cannot be opened, and UnknownLayout when its encoding is not UTF-8 or Feast's table
        lacks columns.
        """
        self._deadline = deadline
        left_ms = max(int(remaining(deadline) * 1000), 1)
        try:
            status = os.stat(self._path)  # noqa: PTH116  half the time of Path.stat, on every read
            identity = (status.st_dev, status.st_ino)
            if self._connection is None or self._identity != identity:
                self.close()
                self._connection = self._open(left_ms)
                self._identity = identity
            elif left_ms != self._busy_ms:
                self._connection.execute(f"PRAGMA busy_timeout = {left_ms}")
                self._busy_ms = left_ms
        except (sqlite3.Error, OSError):
            self.close()
            raise
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._identity = None
        self._busy_ms = 0

    def _open(self, timeout_ms: int) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=timeout_ms / 1000,
            isolation_level=None,
            check_same_thread=False,  # several threads read, one at a time
        )
        try:
            connection.text_factory = bytes
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.set_progress_handler(self._is_late, STEPS_BETWEEN_CHECKS)
            columns = {row[1].decode() for row in connection.execute(f"PRAGMA table_info({self._table})")}
            [(encoding,)] = connection.execute("PRAGMA encoding").fetchall()
            if encoding != b"UTF-8" or (columns and not columns >= COLUMNS):
                raise UnknownLayout(f"the online table lacks {', '.join(sorted(COLUMNS - columns))} or UTF-8")
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline


def batches(connection: sqlite3.Connection, keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The keys in batches that fit into one statement."""
    size = min(connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER), MAX_CUSTOMERS)
    return (keys[start : start + size] for start in range(0, len(keys), size))

"""Feast's SQLite online store, read with one statement a batch.

Customers who stand packed beside Feast's table (`packed`) are read there. The others are read from Feast's
own (feast/infra/online_stores/sqlite.py), which has a row a customer and feature, and a Python object for
each of its cells is most of what that costs. So SQLite joins a customer's rows into one, which a pattern
parses (`grouped_rows`). Whoever does not fit the pattern is read again, row by row.
"""

import math
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from handlers.store import wire
from handlers.store.grouped_rows import GroupedRowParser
from handlers.store.packed import NO_MOMENT, Layout, PackedColumns, quoted
from handlers.store.stored import Decoder, FeatureStoreUnavailable, Stored, UnknownLayout, remaining

COLUMNS = {"entity_key", "feature_name", "value", "event_ts"}
CACHE_KIB = 131_072
"""At most, of the pages that were read: a customer takes about 7 KiB."""
STEPS_BETWEEN_CHECKS = 20_000
"""SQLite instructions, of which 1,000 customers take about half a million, between two looks at the clock."""
MAX_CUSTOMERS = 10_000
"""A statement; a larger batch takes several."""
MAX_ORDERS = 4
"""Orders of rows that patterns are kept for. Feast writes one; a feature added later makes another."""
MAX_MOMENTS = 65_536

UNKNOWN = "unknown"
"""In place of the stored event time of a customer whom the store does not have."""
_UNREADABLE = datetime.min

_Parts = tuple[Sequence[bytes | None], Any]
"""Of one customer: a value a feature in the order of the spec, and the event time as it is stored."""
_Packed = tuple[bytes, bytes | None]
"""Of one customer: numbers and texts, as `packed.Layout` lays them out."""


class SqliteReader:
    name = "sqlite"

    def __init__(
        self, path: Path, table: str, features: Sequence[tuple[str, str]], join_key: str, timeout_s: float
    ) -> None:
        """`features`: name and dtype. Raises UnknownLayout if the table is there and not as Feast makes it.

        A database that is not there yet, or locked, is no error: every read tries again.
        """
        self._path = path
        self._feast_table = table
        self._table = quoted(table)
        self._features = list(features)
        self._layout = Layout(features)
        self._packed = quoted(self._layout.table(table))
        self._schema: int | None = None
        self._is_packed = False
        self._busy_ms = 0
        self._decoder = Decoder(features)
        self._prefix = wire.key_prefix(join_key)
        self._nothing: Sequence[bytes | None] = (None,) * len(self._features)
        self._parsers: dict[tuple[str, ...], GroupedRowParser] = {}
        self._moments = _Moments()
        self._grouped = lru_cache(64)(self._grouped_statement)
        self._lookup = lru_cache(64)(self._packed_statement)
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._deadline = 0.0
        try:
            self._connect(time.monotonic() + timeout_s)
        except FeatureStoreUnavailable:
            self.close()

    def read(self, ids: Sequence[str], deadline: float) -> Stored:
        keys = [wire.key_of(self._prefix, user_id) for user_id in ids]
        try:
            connection = self._connect(deadline)
            limit = min(connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER), MAX_CUSTOMERS)
            packed: dict[bytes, _Packed] = {}
            if self._may_be_packed(connection):
                for part in _parts(keys, limit):
                    for key, numbers, texts in connection.execute(self._lookup(len(part)), part):
                        packed[key] = (numbers, texts)
            try:
                return self._with_the_rest(connection, keys, packed, limit)
            except (ValueError, TypeError):  # packed rows that are none; Feast's own say what is true
                return self._with_the_rest(connection, keys, {}, limit)
        except (sqlite3.Error, OSError, UnknownLayout) as error:
            self.close()
            raise FeatureStoreUnavailable(type(error).__name__) from error

    def _with_the_rest(
        self, connection: sqlite3.Connection, keys: list[bytes], packed: Mapping[bytes, _Packed], limit: int
    ) -> Stored:
        """Who is packed, and from Feast's table who is not.

        Raises ValueError or TypeError where packed rows are nothing that was packed.
        """
        rest = [key for key in keys if key not in packed] if len(packed) < len(keys) else []
        found: dict[bytes, _Parts] = {}
        for part in _parts(rest, limit):
            found |= self._read(connection, part)
        if not packed:
            return self._stored(keys, found)
        if not found:
            return self._stored_packed(keys, packed)
        return self._merged(keys, packed, rest, found)

    def packed_rows(
        self, connection: sqlite3.Connection, keys: Sequence[bytes]
    ) -> list[tuple[bytes, bytes, bytes | None]]:
        """What belongs into the packed table of these customers: key, numbers, texts; only of those who fit.

        `connection` gives TEXT as bytes. Raises sqlite3.Error.
        """
        found = {
            key: values
            for part in _parts(keys, MAX_CUSTOMERS)
            for key, values in self._read(connection, part).items()
        }
        stored = self._stored(list(found), found)
        known = [
            type(moment) is int and timestamp is not None
            for (_, moment), timestamp in zip(found.values(), stored.timestamps, strict=True)
        ]
        # in UTC: Feast's own seconds mean the time zone of whoever wrote them, which is this process
        moments = [
            int(timestamp.timestamp()) if fits and timestamp is not None else 0
            for timestamp, fits in zip(stored.timestamps, known, strict=True)
        ]
        packed = self._layout.pack(stored.columns, moments)
        return [
            (key, *row)
            for key, row, fits in zip(found, packed, known, strict=True)
            if fits and row is not None
        ]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._identity = self._schema = None
        self._busy_ms = 0

    def _connect(self, deadline: float) -> sqlite3.Connection:
        """The open database; opened anew if the file is another one, for a deleted file stays readable."""
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
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise FeatureStoreUnavailable(type(error).__name__) from error
        return self._connection

    def _open(self, timeout_ms: int) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=timeout_ms / 1000,
            isolation_level=None,
            check_same_thread=False,  # one read at a time, from whichever thread
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

    def _may_be_packed(self, connection: sqlite3.Connection) -> bool:
        """Whether the packed table is there, and the triggers that keep it true; looked at again whenever the
        schema has changed.
        """
        [(schema,)] = connection.execute("PRAGMA schema_version").fetchall()
        if schema != self._schema:
            wanted = {self._layout.table(self._feast_table), *self._layout.triggers(self._feast_table)}
            names = {
                row[0].decode()
                for row in connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' OR tbl_name = ?", [self._feast_table]
                )
            }
            self._is_packed = wanted <= names
            self._schema = schema
        return self._is_packed

    def _packed_statement(self, customers: int) -> str:
        return (
            f"SELECT entity_key, numbers, texts FROM {self._packed} "  # noqa: S608
            f"WHERE entity_key IN ({','.join('?' * customers)})"
        )

    def _read(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, _Parts]:
        found: dict[bytes, _Parts] = {}
        unmatched: list[bytes] = []
        parsers = list(self._parsers.values())
        for key, joined, oldest in connection.execute(self._grouped(len(keys)), keys):
            for parser in parsers:
                if (values := parser(joined)) is not None:
                    found[key] = (values, oldest)
                    break
            else:
                unmatched.append(key)
        if unmatched:
            found |= self._read_rows(connection, unmatched)
        return found

    def _grouped_statement(self, customers: int) -> str:
        """A row a customer: key, names and values one after the other, the event time of the oldest part.

        (Feast reports the time of whichever row comes last.)
        """
        return (
            "SELECT entity_key, group_concat(feature_name || value, ''), min(event_ts) "  # noqa: S608
            f"FROM {self._table} WHERE entity_key IN ({','.join('?' * customers)}) GROUP BY entity_key"
        )

    def _read_rows(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, _Parts]:
        """The same, a row a feature; rows of features that the spec no longer has do not count."""
        statement = (
            f"SELECT entity_key, feature_name, value, event_ts FROM {self._table} "  # noqa: S608
            f"WHERE entity_key IN ({','.join('?' * len(keys))}) ORDER BY entity_key"
        )
        parts: dict[bytes, dict[str, tuple[Any, Any]]] = {}
        for key, name, value, moment in connection.execute(statement, keys):
            parts.setdefault(key, {})[bytes(name).decode(errors="replace")] = (value, moment)
        found: dict[bytes, _Parts] = {}
        for key, rows in parts.items():
            used = [rows.get(name) for name, _ in self._features]
            moments = [row[1] for row in used if row is not None]
            if moments:
                values = [None if row is None else _raw(row[0]) for row in used]
                found[key] = (values, min(moments, key=_seconds))
                self._learn(tuple(rows))
        return found

    def _learn(self, order: tuple[str, ...]) -> None:
        known = {name for name, _ in self._features}
        if order not in self._parsers and set(order) == known and len(self._parsers) < MAX_ORDERS:
            self._parsers[order] = GroupedRowParser(order, self._features)

    def _stored(self, keys: Sequence[bytes], found: dict[bytes, _Parts]) -> Stored:
        nobody: _Parts = (self._nothing, UNKNOWN)
        parts = [found.get(key, nobody) for key in keys]
        corrupt: dict[int, str] = {}
        timestamps = [self._moments[moment] for _, moment in parts]
        if _UNREADABLE in timestamps:
            corrupt = {
                at: "no event timestamp" for at, moment in enumerate(timestamps) if moment is _UNREADABLE
            }
        columns = list(zip(*(values for values, _ in parts), strict=True))
        return self._decoder.decode(columns, timestamps, corrupt)

    def _stored_packed(self, keys: Sequence[bytes], packed: Mapping[bytes, _Packed]) -> Stored:
        """Of customers of whom all that the store knows is packed."""
        nobody = self._layout.nobody
        found = [packed.get(key, nobody) for key in keys]
        columns = PackedColumns.of(self._layout, [one[0] for one in found], [one[1] for one in found])
        return Stored(columns, list(map(_utc, columns.rows["moment"].tolist())))

    def _merged(
        self,
        keys: Sequence[bytes],
        packed: Mapping[bytes, _Packed],
        rest: Sequence[bytes],
        found: dict[bytes, _Parts],
    ) -> Stored:
        """Of customers of whom some are packed and some are not."""
        parts = self._stored_packed(list(packed), packed), self._stored(rest, found)
        place = {key: at for at, key in enumerate((*packed, *rest))}
        order = [place[key] for key in keys]
        columns = {}
        for name in self._layout.names:
            column = [*parts[0].columns[name], *parts[1].columns[name]]
            columns[name] = [column[at] for at in order]
        timestamps = [*parts[0].timestamps, *parts[1].timestamps]
        corrupt = {
            position: parts[1].corrupt[at - len(packed)]
            for position, at in enumerate(order)
            if at - len(packed) in parts[1].corrupt
        }
        return Stored(columns, [timestamps[at] for at in order], corrupt)


@lru_cache(MAX_MOMENTS)
def _utc(packed: int) -> datetime | None:
    """The event time of a packed row."""
    return None if packed == NO_MOMENT else datetime.fromtimestamp(packed, tz=UTC)


class _Moments(dict[Any, datetime | None]):
    """Stored event time -> as Feast reads it: seconds that it takes for local time, and then calls UTC.

    Right where the writer's time zone is the reader's. Packed rows need not that.
    """

    def __missing__(self, stored: Any) -> datetime | None:
        if len(self) > MAX_MOMENTS:
            self.clear()
        self[stored] = moment = None if stored == UNKNOWN else _moment(stored)
        return moment


def _moment(stored: Any) -> datetime:
    try:
        return datetime.fromtimestamp(stored).replace(tzinfo=UTC)
    except (TypeError, OverflowError, OSError, ValueError):
        return _UNREADABLE


def _parts(keys: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))


def _seconds(stored: Any) -> float:
    return stored if type(stored) is int else -math.inf


def _raw(stored: Any) -> bytes | None:
    """SQL's NULL is a value that is not there; a number, which Feast never writes, decodes to nothing."""
    return stored if stored is None or isinstance(stored, bytes) else b"?"

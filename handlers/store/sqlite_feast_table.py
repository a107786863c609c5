"""Reads Feast's own table in SQLite (feast/infra/online_stores/sqlite.py): a row per customer and feature.

Most of the cost of such a read is the creation of a Python object for each cell. Therefore SQLite joins the
rows of a customer into one, which a pattern parses (`grouped_rows`). Rows that do not match a pattern are
read again one by one.
"""

import math
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from handlers.store.decoder import Decoder
from handlers.store.grouped_rows import GroupedRowParser
from handlers.store.packed import quoted
from handlers.store.sqlite_database import batches
from handlers.store.stored import Stored

MAX_ORDERS = 4
"""Orders of a customer's rows for which patterns are stored. Feast writes one order; a feature that is added
later makes another.
"""

UNKNOWN = "unknown"
"""In place of the stored event time of a customer who is not in the store."""
_UNREADABLE = datetime.min

Row = tuple[Sequence[bytes | None], Any]
"""Of one customer: a value per feature, in the order of the spec, and the event time as stored."""


class FeastTable:
    def __init__(self, table: str, features: Sequence[tuple[str, str]]) -> None:
        """`features`: name and dtype, in the order of the spec."""
        self._table = quoted(table)
        self._features = list(features)
        self._decoder = Decoder(features)
        self._absent: Row = ((None,) * len(self._features), UNKNOWN)
        self._parsers: dict[tuple[str, ...], GroupedRowParser] = {}
        self._grouped = lru_cache(64)(self._grouped_statement)

    def read(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """The rows of the customers who are in the table. `connection` returns TEXT as bytes.

        Raises sqlite3.Error.
        """
        found: dict[bytes, Row] = {}
        for batch in batches(connection, keys):
            unmatched: list[bytes] = []
            parsers = list(self._parsers.values())
            for key, joined, oldest in connection.execute(self._grouped(len(batch)), batch):
                for parser in parsers:
                    if (values := parser(joined)) is not None:
                        found[key] = (values, oldest)
                        break
                else:
                    unmatched.append(key)
            if unmatched:
                found |= self._read_one_by_one(connection, unmatched)
        return found

    def stored(self, keys: Sequence[bytes], found: Mapping[bytes, Row]) -> Stored:
        """What `found` contains of these customers, decoded."""
        rows = [found.get(key, self._absent) for key in keys]
        corrupt: dict[int, str] = {}
        timestamps = [_moment(moment) for _, moment in rows]
        if _UNREADABLE in timestamps:
            corrupt = {
                at: "no event timestamp" for at, moment in enumerate(timestamps) if moment is _UNREADABLE
            }
        columns = list(zip(*(values for values, _ in rows), strict=True))
        return self._decoder.decode(columns, timestamps, corrupt)

    def _grouped_statement(self, customers: int) -> str:
        """One row per customer: key, concatenated names and values, and the oldest event time.

        (Feast returns the event time of the last row.)
        """
        return (
            "SELECT entity_key, group_concat(feature_name || value, ''), min(event_ts) "  # noqa: S608
            f"FROM {self._table} WHERE entity_key IN ({','.join('?' * customers)}) GROUP BY entity_key"
        )

    def _read_one_by_one(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """The same from a row per feature. Rows of features that are not in the spec are ignored."""
        statement = (
            f"SELECT entity_key, feature_name, value, event_ts FROM {self._table} "  # noqa: S608
            f"WHERE entity_key IN ({','.join('?' * len(keys))}) ORDER BY entity_key"
        )
        cells: dict[bytes, dict[str, tuple[Any, Any]]] = {}
        for key, name, value, moment in connection.execute(statement, keys):
            cells.setdefault(key, {})[bytes(name).decode(errors="replace")] = (value, moment)
        found: dict[bytes, Row] = {}
        for key, by_name in cells.items():
            used = [by_name.get(name) for name, _ in self._features]
            moments = [cell[1] for cell in used if cell is not None]
            if moments:
                values = [None if cell is None else _raw(cell[0]) for cell in used]
                found[key] = (values, min(moments, key=_seconds))
                self._add_parser(tuple(by_name))
        return found

    def _add_parser(self, order: tuple[str, ...]) -> None:
        """Parse further customers by a pattern if their rows have the same order and exactly the features."""
        names = {name for name, _ in self._features}
        if order not in self._parsers and set(order) == names and len(self._parsers) < MAX_ORDERS:
            self._parsers[order] = GroupedRowParser(order, self._features)


@lru_cache(65_536)
def _moment(stored: Any) -> datetime | None:
    """The event time as Feast reads it: it converts the stored seconds to local time and labels that UTC.

    This is correct if the writer's time zone is the reader's. Packed rows do not need that.
    """
    if stored == UNKNOWN:
        return None
    try:
        return datetime.fromtimestamp(stored).replace(tzinfo=UTC)
    except (TypeError, OverflowError, OSError, ValueError):
        return _UNREADABLE


def _seconds(stored: Any) -> float:
    return stored if type(stored) is int else -math.inf


def _raw(stored: Any) -> bytes | None:
    """The bytes of a cell; None for SQL's NULL. A number, which Feast never writes, becomes unreadable."""
    return stored if stored is None or isinstance(stored, bytes) else b"?"

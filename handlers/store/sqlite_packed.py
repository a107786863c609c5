"""Reads the table of packed rows (`packed`) beside Feast's table in SQLite: one row per customer."""

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache

from handlers.store.columns import PackedColumns
from handlers.store.packed import NO_MOMENT, Layout, quoted
from handlers.store.sqlite_database import batches
from handlers.store.stored import Stored

PackedRow = tuple[bytes, bytes | None]
"""`numbers` and `texts` of one customer, in the format of `packed.Layout`."""


class PackedTable:
    """The table. It counts as empty unless it has all triggers that keep it consistent with Feast's table."""

    def __init__(self, feast_table: str, features: Sequence[tuple[str, str]]) -> None:
        """`features`: name and dtype, in the order of the spec."""
        self._layout = Layout(features)
        self._feast_table = feast_table
        self._table = quoted(self._layout.table(feast_table))
        self._statement = lru_cache(64)(self._select)
        self._checked: tuple[sqlite3.Connection | None, int] = (None, 0)
        self._is_there = False

    def read(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, PackedRow]:
        """The rows of those customers who have one. Raises sqlite3.Error."""
        if not self._is_consistent(connection):
            return {}
        return {
            key: (numbers, texts)
            for batch in batches(connection, keys)
            for key, numbers, texts in connection.execute(self._statement(len(batch)), batch)
        }

    def stored(self, keys: Sequence[bytes], found: Mapping[bytes, PackedRow]) -> Stored:
        """What `found` contains of these customers, as arrays. Raises ValueError or TypeError when a row is
        damaged.
        """
        absent = self._layout.absent
        rows = [found.get(key, absent) for key in keys]
        columns = PackedColumns.of(self._layout, [row[0] for row in rows], [row[1] for row in rows])
        return Stored(columns, list(map(_moment, columns.rows["moment"].tolist())))

    def _is_consistent(self, connection: sqlite3.Connection) -> bool:
        """Whether the table and all triggers exist. Checked again when the schema has changed."""
        [(schema,)] = connection.execute("PRAGMA schema_version").fetchall()
        if self._checked != (connection, schema):
            needed = {self._layout.table(self._feast_table), *self._layout.triggers(self._feast_table)}
            names = {
                row[0].decode()
                for row in connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' OR tbl_name = ?", [self._feast_table]
                )
            }
            self._is_there = needed <= names
            self._checked = (connection, schema)
        return self._is_there

    def _select(self, customers: int) -> str:
        return (
            f"SELECT entity_key, numbers, texts FROM {self._table} "  # noqa: S608
            f"WHERE entity_key IN ({','.join('?' * customers)})"
        )


@lru_cache(65_536)
def _moment(seconds: int) -> datetime | None:
    """The event time of a packed row."""
    return None if seconds == NO_MOMENT else datetime.fromtimestamp(seconds, tz=UTC)

"""Reads Feast's SQLite online store: packed rows where they exist, else the rows of Feast's own table.

Feast's table (feast/infra/online_stores/sqlite.py) has a row per customer and feature. `sqlite_packed` reads
one row per customer, which features/packing.py writes beside it; `sqlite_feast_table` reads the others.
"""

import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from handlers.store import wire
from handlers.store.sqlite_database import Database
from handlers.store.sqlite_feast_table import FeastTable
from handlers.store.sqlite_packed import PackedRow, PackedTable
from handlers.store.stored import FeatureStoreUnavailable, Stored, UnknownLayout, joined


class SqliteReader:
    name = "sqlite"

    def __init__(
        self, path: Path, table: str, features: Sequence[tuple[str, str]], join_key: str, timeout_s: float
    ) -> None:
        """`features`: name and dtype. Raises UnknownLayout when the table exists in another layout than
        Feast's.

        A database that does not exist yet, or is locked, is no error, because every read tries again.
        """
        self._database = Database(path, table)
        self._packed = PackedTable(table, features)
        self._feast = FeastTable(table, features)
        self._prefix = wire.key_prefix(join_key)
        with suppress(FeatureStoreUnavailable, sqlite3.Error, OSError):
            self._database.connect(time.monotonic() + timeout_s)

    def read(self, ids: Sequence[str], deadline: float) -> Stored:
        keys = [wire.key_of(self._prefix, user_id) for user_id in ids]
        try:
            connection = self._database.connect(deadline)
            packed = self._packed.read(connection, keys)
            try:
                return self._stored(connection, keys, packed)
            except (ValueError, TypeError):  # damaged packed rows; Feast's table has the same values
                return self._stored(connection, keys, {})
        except (sqlite3.Error, OSError, UnknownLayout) as error:
            self.close()
            raise FeatureStoreUnavailable(type(error).__name__) from error

    def close(self) -> None:
        self._database.close()

    def _stored(
        self, connection: sqlite3.Connection, keys: list[bytes], packed: Mapping[bytes, PackedRow]
    ) -> Stored:
        """The packed rows, and the rows of Feast's table for all other keys, in the order of `keys`.

        Raises ValueError or TypeError when a packed row is damaged.
        """
        rest = [key for key in keys if key not in packed] if len(packed) < len(keys) else []
        found = self._feast.read(connection, rest)
        if not packed:
            return self._feast.stored(keys, found)
        if not found:
            return self._packed.stored(keys, packed)
        both = joined([self._packed.stored(list(packed), packed), self._feast.stored(rest, found)])
        place = {key: at for at, key in enumerate((*packed, *rest))}
        return both.taken([place[key] for key in keys])

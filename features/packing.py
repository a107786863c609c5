"""Writes the rows that `handlers/store/packed.py` reads: one packed row per customer beside Feast's table."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from handlers.store.online_sqlite import SqliteReader
from handlers.store.packed import Layout, quoted

CUSTOMERS = 5_000
"""Customers per transaction. Feast's writers wait for it for some tenths of a second."""
WAIT_S = 60.0


def prepare(path: Path, feast_table: str, features: Sequence[tuple[str, str]]) -> None:
    """Create the packed table of these features, and the triggers that keep it consistent with Feast's table.

    Packed tables and triggers of other features are dropped. Raises sqlite3.Error.
    """
    layout = Layout(features)
    packed, triggers = layout.table(feast_table), layout.triggers(feast_table)
    with _opened(path) as connection, _transaction(connection):
        others = [
            (kind.decode(), name.decode())
            for kind, name in connection.execute(
                "SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'table') "
                "AND substr(name, 1, length(?1)) = ?1 ORDER BY type DESC",
                [f"{feast_table}__packed_"],  # not LIKE, which treats _ as a wildcard
            )
        ]
        known = {name for _, name in others}
        whole = packed in known and known.issuperset(triggers)
        for kind, name in others:
            if not (whole and (name == packed or name in triggers)):
                connection.execute(f"DROP {kind} {quoted(name)}")
        if not whole:
            connection.execute(
                f"CREATE TABLE {quoted(packed)} "
                "(entity_key BLOB PRIMARY KEY, numbers BLOB NOT NULL, texts BLOB) WITHOUT ROWID"
            )
            for statement in triggers.values():
                connection.execute(statement)


def pack(path: Path, feast_table: str, features: Sequence[tuple[str, str]], join_key: str) -> int:
    """Pack every customer who is not packed yet, and return their number. Call `prepare` first.

    Each transaction locks out Feast's writers while it reads and packs its customers, so that an old value
    never replaces a new one. Raises sqlite3.Error.
    """
    packed = quoted(Layout(features).table(feast_table))
    feasts, last, count = quoted(feast_table), b"", 0
    reader = SqliteReader(path, feast_table, features, join_key, WAIT_S)
    with _opened(path) as connection, closing(reader):
        while True:
            with _transaction(connection):
                keys = [
                    key
                    for (key,) in connection.execute(
                        f"SELECT DISTINCT entity_key FROM {feasts} WHERE entity_key > ? AND NOT EXISTS "
                        f"(SELECT 1 FROM {packed} WHERE entity_key = {feasts}.entity_key) "
                        "ORDER BY entity_key LIMIT ?",
                        [last, CUSTOMERS],
                    )
                ]
                rows = reader.packed_rows(connection, keys) if keys else []
                connection.executemany(f"INSERT INTO {packed} VALUES (?, ?, ?)", rows)
            if not keys:
                return count
            last = keys[-1]
            count += len(rows)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)) as connection:
        connection.text_factory = bytes
        yield connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")

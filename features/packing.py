"""Writes the rows that `handlers/store/packed.py` reads: one packed row per customer beside Feast's table."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from handlers.store.packed import Layout, quoted
from handlers.store.sqlite_feast_table import FeastTable

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
        others = _packed_objects(connection, feast_table)
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


def drop(path: Path, feast_table: str) -> None:
    """Drop Feast's table with its packed tables and triggers. Raises sqlite3.Error."""
    with _opened(path) as connection, _transaction(connection):
        for kind, name in [*_packed_objects(connection, feast_table), ("table", feast_table)]:
            connection.execute(f"DROP {kind} IF EXISTS {quoted(name)}")


def pack(path: Path, feast_table: str, features: Sequence[tuple[str, str]]) -> int:
    """Pack every customer who is not packed yet, and return their number. Call `prepare` first.

    Each transaction locks out Feast's writers while it reads and packs its customers, so that an old value
    never replaces a new one. Raises sqlite3.Error.
    """
    table, layout = FeastTable(feast_table, features), Layout(features)
    packed, feast = quoted(layout.table(feast_table)), quoted(feast_table)
    last, count = b"", 0
    with _opened(path) as connection:
        while True:
            with _transaction(connection):
                keys = [
                    key
                    for (key,) in connection.execute(
                        f"SELECT DISTINCT entity_key FROM {feast} WHERE entity_key > ? AND NOT EXISTS "
                        f"(SELECT 1 FROM {packed} WHERE entity_key = {feast}.entity_key) "
                        "ORDER BY entity_key LIMIT ?",
                        [last, CUSTOMERS],
                    )
                ]
                rows = _packed_rows(connection, table, layout, keys)
                connection.executemany(f"INSERT INTO {packed} VALUES (?, ?, ?)", rows)
            if not keys:
                return count
            last = keys[-1]
            count += len(rows)


def _packed_objects(connection: sqlite3.Connection, feast_table: str) -> list[tuple[str, str]]:
    """Kind and name of the triggers and packed tables of Feast's table, triggers first."""
    return [
        (kind.decode(), name.decode())
        for kind, name in connection.execute(
            "SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'table') "
            "AND substr(name, 1, length(?1)) = ?1 ORDER BY type DESC",
            [f"{feast_table}__packed_"],  # not LIKE, which treats _ as a wildcard
        )
    ]


def _packed_rows(
    connection: sqlite3.Connection, table: FeastTable, layout: Layout, keys: Sequence[bytes]
) -> list[tuple[bytes, bytes, bytes | None]]:
    """Key, numbers and texts of those customers whose values fit into a packed row."""
    found = table.read(connection, keys)
    if not found:
        return []
    stored = table.stored(list(found), found)
    # seconds of UTC, while Feast stores the local time of the process that writes, which is this one
    moments = [
        int(moment.timestamp()) if moment is not None and type(raw) is int else None
        for moment, (_, raw) in zip(stored.timestamps, found.values(), strict=True)
    ]
    packed = layout.pack(stored.columns, [moment or 0 for moment in moments])
    return [
        (key, *row)
        for key, row, moment in zip(found, packed, moments, strict=True)
        if row is not None and moment is not None
    ]


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

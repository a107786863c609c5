"""Removes departed customers: those in the online store that are not in the newest snapshots.

A customer departs when the source no longer contains them (erasure), or when they are no longer eligible.
Only rows of this workspace's project and view are read and removed.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from features.packing import WAIT_S
from handlers.store import wire
from handlers.store.packed import quoted

CUSTOMERS = 5_000
"""Customers per transaction of SQLite, or per round trip of Redis."""


def remove_from_sqlite(path: Path, feast_table: str, join_key: str, present: Iterable[str]) -> int:
    """Delete the rows of all customers except `present` (masked ids); return the number of deleted customers.

    Triggers delete their packed rows in the same transaction (handlers/store/packed.py). Raises
    sqlite3.Error.
    """
    prefix, table = wire.key_prefix(join_key), quoted(feast_table)
    with closing(sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)) as connection:
        connection.execute("CREATE TEMP TABLE present (entity_key BLOB PRIMARY KEY) WITHOUT ROWID")
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT OR IGNORE INTO temp.present VALUES (?)", ((wire.key_of(prefix, one),) for one in present)
        )
        connection.execute("COMMIT")
        departed = connection.execute(
            f"SELECT DISTINCT entity_key FROM {table} WHERE entity_key NOT IN temp.present"
        ).fetchall()
        _delete(connection, table, [key for (key,) in departed])
    return len(departed)


def erase_from_sqlite(path: Path, feast_table: str, join_key: str, users: Iterable[str]) -> None:
    """Delete the rows of `users` (masked ids). Raises sqlite3.Error."""
    prefix = wire.key_prefix(join_key)
    with closing(sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)) as connection:
        _delete(connection, quoted(feast_table), [wire.key_of(prefix, user) for user in users])


def _delete(connection: sqlite3.Connection, table: str, keys: Sequence[bytes]) -> None:
    connection.execute("PRAGMA secure_delete = ON")  # overwrites deleted bytes in the file
    for batch in _batches(keys, CUSTOMERS):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(f"DELETE FROM {table} WHERE entity_key = ?", [(key,) for key in batch])
        connection.execute("COMMIT")
    if keys:
        connection.execute("PRAGMA busy_timeout = 1000")  # skip the checkpoint if a reader blocks it
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def remove_from_redis(
    client: Any, project: str, view: str, join_key: str, fields: Iterable[bytes], present: Iterable[str]
) -> int:
    """Delete the `fields` of `view` for all customers except `present` (masked ids); return how many.

    `client` is a client of redis-py, also for a cluster. Raises redis.exceptions.RedisError.
    """
    prefix, suffix = wire.key_prefix(join_key), project.encode()
    departed = _without(present, _users(client, prefix, suffix))
    return erase_from_redis(
        client, project, view, join_key, fields, (one for some in departed for one in some)
    )


def erase_from_redis(
    client: Any, project: str, view: str, join_key: str, fields: Iterable[bytes], users: Iterable[str]
) -> int:
    """Delete the `fields` of `view` for `users` (masked ids); return how many had them. A key without other
    views is deleted as a whole. Raises redis.exceptions.RedisError.
    """
    prefix, suffix, removed = wire.key_prefix(join_key), project.encode(), 0
    listed, stamp = list(fields), f"_ts:{view}".encode()
    for some in _batches(users, CUSTOMERS):
        keys = [wire.key_of(prefix, user) + suffix for user in some]
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hkeys(key)
            held = pipe.execute()
        with client.pipeline(transaction=False) as pipe:
            for key, names in zip(keys, held, strict=True):
                views = {name for name in names if name.startswith(b"_ts:")}
                if stamp in views:
                    removed += 1
                    pipe.delete(key) if views == {stamp} else pipe.hdel(key, *listed, stamp)
            pipe.execute()
    return removed


def keys_of(client: Any, join_key: str, project: str) -> Iterator[bytes]:
    """The keys of all customers of the project in Redis. Raises redis.exceptions.RedisError."""
    prefix, suffix = wire.key_prefix(join_key), project.encode()
    return (wire.key_of(prefix, user) + suffix for user in _users(client, prefix, suffix))


def _users(client: Any, prefix: bytes, suffix: bytes) -> Iterator[str]:
    """Customers of exactly this project, not of a project whose name only ends with this project's name."""
    for key in client.scan_iter(match=prefix + b"*" + suffix, count=1_000):
        size, rest = int.from_bytes(key[len(prefix) : len(prefix) + 4], "little"), key[len(prefix) + 4 :]
        if rest[size:] == suffix:
            yield rest[:size].decode()


def _without(present: Iterable[str], users: Iterable[str]) -> Iterator[list[str]]:
    """Batches of those `users` who are not in `present`. DuckDB stores the ids, so millions fit."""
    with duckdb.connect(":memory:") as connection:
        for table, names in (("present", present), ("held", users)):
            connection.execute(f"CREATE TABLE {table} (user_id VARCHAR)")
            for batch in _batches(names, 100_000):
                connection.register("names", pa.table({"user_id": pa.array(batch, pa.string())}))
                connection.execute(f"INSERT INTO {table} SELECT user_id FROM names")
        departed = connection.execute("SELECT DISTINCT user_id FROM held ANTI JOIN present USING (user_id)")
        while rows := departed.fetchmany(CUSTOMERS):
            yield [user for (user,) in rows]


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch

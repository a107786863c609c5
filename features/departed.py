"""Who left: customers whom the online store holds and the newest snapshots do not. They are removed.

A customer leaves when the source no longer has them (erasure), or when they are not eligible any more. Only
rows of this workspace's project and view are looked at.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from features.packing import WAIT_S
from handlers import wire
from handlers.packed import quoted

CUSTOMERS = 5_000
"""A transaction of SQLite, or a round trip of Redis."""


def remove_from_sqlite(path: Path, feast_table: str, join_key: str, present: Iterable[str]) -> int:
    """Delete the rows of everybody but `present` (masked ids); returns the number of customers.

    Triggers drop their packed rows in the same transaction (handlers/packed.py). Raises sqlite3.Error.
    """
    prefix, table, removed = wire.key_prefix(join_key), quoted(feast_table), 0
    with closing(sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted leaves no bytes in the file
        connection.execute("CREATE TEMP TABLE present (entity_key BLOB PRIMARY KEY) WITHOUT ROWID")
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT OR IGNORE INTO temp.present VALUES (?)", ((wire.key_of(prefix, one),) for one in present)
        )
        connection.execute("COMMIT")
        gone = connection.execute(
            f"SELECT DISTINCT entity_key FROM {table} WHERE entity_key NOT IN temp.present"
        ).fetchall()
        for some in _batches(gone, CUSTOMERS):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(f"DELETE FROM {table} WHERE entity_key = ?", some)
            connection.execute("COMMIT")
            removed += len(some)
        if removed:
            connection.execute("PRAGMA busy_timeout = 1000")  # a reader may be in the way; later then
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return removed


def remove_from_redis(
    client: Any, project: str, view: str, join_key: str, fields: Iterable[bytes], present: Iterable[str]
) -> int:
    """Delete the `fields` of `view` of everybody but `present`; returns the number of customers.

    `client` is redis-py's, also of a cluster. A key that holds no other view is deleted whole. Raises
    redis.exceptions.RedisError.
    """
    prefix, suffix, removed = wire.key_prefix(join_key), project.encode(), 0
    listed, stamp = list(fields), f"_ts:{view}".encode()
    for users in _without(present, _users(client, prefix, suffix)):
        keys = [wire.key_of(prefix, user) + suffix for user in users]
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


def _users(client: Any, prefix: bytes, suffix: bytes) -> Iterator[str]:
    """Customers of exactly this project: a name that ends like ours is another one."""
    for key in client.scan_iter(match=prefix + b"*" + suffix, count=1_000):
        size, rest = int.from_bytes(key[len(prefix) : len(prefix) + 4], "little"), key[len(prefix) + 4 :]
        if rest[size:] == suffix:
            yield rest[:size].decode()


def _without(present: Iterable[str], users: Iterable[str]) -> Iterator[list[str]]:
    """Those of `users` who are not among `present`, some at a time. Millions fit: DuckDB holds the names."""
    with duckdb.connect(":memory:") as connection:
        for table, names in (("present", present), ("held", users)):
            connection.execute(f"CREATE TABLE {table} (user_id VARCHAR)")
            for some in _batches(names, 100_000):
                connection.register("names", pa.table({"user_id": pa.array(some, pa.string())}))
                connection.execute(f"INSERT INTO {table} SELECT user_id FROM names")
        gone = connection.execute("SELECT DISTINCT user_id FROM held ANTI JOIN present USING (user_id)")
        while rows := gone.fetchmany(CUSTOMERS):
            yield [user for (user,) in rows]


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    remaining = iter(items)
    while some := list(islice(remaining, size)):
        yield some

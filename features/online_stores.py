"""The online stores that a workspace may have: the address, the errors and the removal of customers of each.

Feast 0.67 has no method of all its stores that lists or deletes customers (only Redis and a few others have
one of their own). A store from which a customer could not be erased is therefore refused before anything is
written to it. A new store is one entry of `ONLINE_STORES`. Servers read it by Feast, or by a reader of its
own (handlers/store/opening.py).
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from core.errors import FeatureError
from features import packing
from features.departed import erase_from_redis, erase_from_sqlite, remove_from_redis, remove_from_sqlite
from features.lean_feast import FeatureStore
from features.repo.definitions import JOIN_KEY
from features.spec import FeaturesConfig
from handlers.store.redis_reader import field_of


@dataclass(frozen=True)
class Place:
    """Where the values of one view of a workspace are in its online store."""

    view: str
    stored: Sequence[tuple[str, str]]
    """Names and types of the stored features."""
    project: str
    address: str
    """A path, or a connection string."""

    @property
    def table(self) -> str:
        """Feast's table in SQLite."""
        return f"{self.project}_{self.view}"


@dataclass(frozen=True)
class OnlineStore:
    """What differs between online stores. All functions may raise the `errors`."""

    address_key: str
    """The key of `features.online_store` that has the address, which differs between workspace and server."""
    errors: tuple[type[Exception], ...]
    """What the store's client raises while the store cannot be read or written."""
    remove_departed: Callable[[Place, FeatureStore, Iterable[str]], int]
    """Removes all customers of the workspace except those (masked ids); returns how many were removed."""
    erase: Callable[[Place, FeatureStore, Sequence[str]], object]
    """Removes these customers (masked ids)."""
    prepare: Callable[[Place], None] = lambda _: None
    """Prepares the store for servers that read it; called whenever the definitions are registered."""
    pack: Callable[[Place], int] = lambda _: 0
    """Packs the customers written since the last call (features/packing.py); returns how many."""
    drop: Callable[[Place], None] = lambda _: None
    """Drops the empty tables of a view that is no longer needed."""


def _remove_from_sqlite(place: Place, _: FeatureStore, present: Iterable[str]) -> int:
    return remove_from_sqlite(Path(place.address), place.table, JOIN_KEY, present)


def _erase_from_sqlite(place: Place, _: FeatureStore, users: Sequence[str]) -> None:
    erase_from_sqlite(Path(place.address), place.table, JOIN_KEY, users)


def _remove_from_redis(place: Place, store: FeatureStore, present: Iterable[str]) -> int:
    client, fields = _redis_of(place, store)
    return remove_from_redis(client, place.project, place.view, JOIN_KEY, fields, present)


def _erase_from_redis(place: Place, store: FeatureStore, users: Sequence[str]) -> None:
    client, fields = _redis_of(place, store)
    erase_from_redis(client, place.project, place.view, JOIN_KEY, fields, users)


def _redis_of(place: Place, store: FeatureStore) -> tuple[Any, list[bytes]]:
    """Feast's client, and the names of the view's fields."""
    online: Any = store._get_provider().online_store
    client = online._get_client(store.config.online_store)
    return client, [field_of(place.view, name) for name, _ in place.stored]


def _prepare_sqlite(place: Place) -> None:
    """Enable SQLite's write-ahead log, a property of the file, so that a serving process can read during
    writes. Create the table for packed vectors (features/packing.py).
    """
    with closing(sqlite3.connect(place.address, timeout=60)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f'DROP INDEX IF EXISTS "{place.table}_read"')  # made by releases without packing
    packing.prepare(Path(place.address), place.table, place.stored)


def _pack_sqlite(place: Place) -> int:
    return packing.pack(Path(place.address), place.table, place.stored)


def _drop_from_sqlite(place: Place) -> None:
    packing.drop(Path(place.address), place.table)


ONLINE_STORES: Mapping[str, OnlineStore] = {
    "sqlite": OnlineStore(
        "path",
        (sqlite3.Error,),
        _remove_from_sqlite,
        _erase_from_sqlite,
        _prepare_sqlite,
        _pack_sqlite,
        _drop_from_sqlite,
    ),
    "redis": OnlineStore("connection_string", (RedisError,), _remove_from_redis, _erase_from_redis),
}
"""`type` of `features.online_store` -> store."""


def online_store_of(spec: FeaturesConfig) -> OnlineStore:
    """The online store of the spec. Raises FeatureError for one from which customers cannot be erased."""
    kind = str(spec.online_store.get("type"))
    if kind not in ONLINE_STORES:
        raise FeatureError(
            f"features.online_store: customers cannot be erased from a store of type {kind}; "
            f"use {' or '.join(ONLINE_STORES)}, or add the type to features/online_stores.py"
        )
    store = ONLINE_STORES[kind]
    if store.address_key not in spec.online_store:
        raise FeatureError(f"features.online_store: give the address of {kind} as {store.address_key}")
    return store

"""The customers' newest features in Redis, field by field. A store in the workspace is one of its files."""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from core.workspace import Workspace
from features.departed import keys_of
from features.online_stores import online_store_of
from features.project import project_of
from features.repo.definitions import JOIN_KEY
from features.spec import FeaturesConfig
from features.store import apply, materialize
from pipelines.backup.vault import BackupError, Vault
from pipelines.context import Stages
from pipelines.services import needed_services
from pipelines.streaming import newest_moment, push_again

CUSTOMERS = 5_000
"""Of an object, and of a round trip."""


def save_online(spec: FeaturesConfig, files: Workspace, vault: Vault) -> dict[str, Any]:
    """The kind of store, and the objects with all fields of this workspace's customers, if it is Redis."""
    kind = str(spec.online_store["type"])
    objects, count = [], 0
    if kind == "redis":
        with _errors(spec):
            client = _client(spec, files)
            for keys in _batches(keys_of(client, JOIN_KEY, project_of(spec, files))):
                content = [[_text(key), *_fields(found)] for key, found in _read(client, sorted(keys))]
                count += len(content)
                objects.append(vault.put(json.dumps(content, separators=(",", ":")).encode()))
    return {"kind": kind, "objects": objects, "customers": count, "project": project_of(spec, files)}


def load_online(settings: Stages, record: dict[str, Any], vault: Vault, clock: Callable[[], datetime]) -> int:
    """Register the definitions and write the saved fields; return the number of customers.

    Where another kind of store was saved, the values are those of the restored snapshots, and the later ones
    of the stream.
    """
    spec, files = settings.features, settings.files
    if not files.feature_manifest.is_file():
        return 0
    if record["kind"] != spec.online_store["type"] or record["project"] != project_of(spec, files):
        written = 0
        for service in needed_services(settings):
            written += materialize(service.spec, service.files, lambda message: None)
        push_again(settings, newest_moment(files), clock)
        return written
    for service in needed_services(settings):
        apply(service.spec, service.files)
    if record["kind"] != "redis":
        return 0
    with _errors(spec):
        client = _client(spec, files)
        for digest in record["objects"]:
            with client.pipeline(transaction=False) as pipe:
                for key, *fields in json.loads(vault.get(digest)):
                    pipe.delete(_bytes(key))
                    pipe.hset(_bytes(key), mapping={_bytes(name): _bytes(value) for name, value in fields})
                pipe.execute()
    return int(record["customers"])


def _client(spec: FeaturesConfig, files: Workspace) -> Any:
    from features.store import connect

    store: Any = connect(spec, files)
    return store._get_provider().online_store._get_client(store.config.online_store)


def _read(client: Any, keys: Sequence[bytes]) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hgetall(key)
        yield from ((key, found) for key, found in zip(keys, pipe.execute(), strict=True) if found)


def _fields(found: dict[bytes, bytes]) -> list[list[str]]:
    return sorted([_text(name), _text(value)] for name, value in found.items())


def _batches(keys: Iterator[bytes]) -> Iterator[list[bytes]]:
    while batch := list(islice(keys, CUSTOMERS)):
        yield batch


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


class _errors:
    """Converts errors of the online store's client."""

    def __init__(self, spec: FeaturesConfig) -> None:
        self._errors = online_store_of(spec).errors

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, self._errors):
            raise BackupError(f"features.online_store: {error}; start it, or correct its address") from None

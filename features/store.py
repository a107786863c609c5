"""The feature store of a workspace: its configuration, its definitions, and its newest online values."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from core.errors import FeatureError
from core.workspace import Workspace, write_atomically
from features.build import read_feature_manifest
from features.lean_feast import FeatureStore, quiet
from features.newest import ROWS, newest
from features.online_stores import Place, online_store_of
from features.project import project_of
from features.repo.definitions import define
from features.spec import FeaturesConfig
from handlers.bundle import STORE_TAG

# isort: split
from feast.errors import FeatureServiceNotFoundException
from feast.repo_config import RepoConfig

REGISTRY_VARIABLE = "CHURN_FEAST_REGISTRY"
ONLINE_VARIABLE = "CHURN_FEAST_ONLINE"

log = logging.getLogger("churn.features")


def open_store(spec: FeaturesConfig, files: Workspace) -> FeatureStore:
    """Open the registered store. Raises FeatureError when it is not registered, or for another spec."""
    store = connect(spec, files)
    try:
        tags = store.get_feature_service(spec.service).tags
    except (FeatureServiceNotFoundException, FileNotFoundError):
        raise FeatureError(
            f"features.service {spec.service} is not in the feature store; run `churn features materialize`"
        ) from None
    if tags.get(STORE_TAG) != spec.digest():
        raise FeatureError(
            f"features.service {spec.service} was registered for another feature spec; "
            "run `churn features build` and `churn features materialize`, or name a new service"
        )
    return store


def registered_services(spec: FeaturesConfig, files: Workspace) -> dict[str, str]:
    """The services of this workspace in its feature store -> the digests of their specs; empty before the
    first one. `spec` gives the addresses."""
    registry, _ = _resolved_addresses(spec, files)
    if isinstance(registry, str) and "://" not in registry and not Path(registry).is_file():
        return {}
    store = connect(spec, files)
    try:
        found = store.list_feature_services()
    except FileNotFoundError:
        return {}
    return {one.name: one.tags[STORE_TAG] for one in found if STORE_TAG in one.tags}


def apply(spec: FeaturesConfig, files: Workspace) -> FeatureStore:
    """Register the spec's definitions, and write a feature_store.yaml for Feast's command line.

    Raises FeatureError for an online store from which customers cannot be erased.
    """
    online = online_store_of(spec)
    write_atomically(
        files.feast / "feature_store.yaml",
        yaml.safe_dump(_config(spec, files, *_resolved_addresses(spec, files))),
    )
    store = connect(spec, files)
    with quiet():
        store.apply(define(spec, files.snapshots).objects())
    online.prepare(_place(spec, files))
    return store


def materialize(
    spec: FeaturesConfig,
    files: Workspace,
    progress: Callable[[str], None] = log.info,
    streamed: Iterable[str] = (),
) -> int:
    """Register the definitions, write each customer's newest snapshot to the online store, and remove
    departed customers. Returns the number of customers who were written. `streamed`: customers (masked) with
    newer vectors from a stream, who have not departed although no snapshot has them.

    Feast's `materialize` would write every snapshot of the interval, each over the previous one. Each batch
    is one transaction, so a reader gets either a customer's old vector or the new one. Running it again is
    harmless. Raises FeatureError for snapshots of another spec and for errors of the store.
    """
    record = read_feature_manifest(files)
    if record["spec_digest"] != spec.digest():
        raise FeatureError(
            "the snapshots were built for another feature spec; run `churn features build` first"
        )
    store = apply(spec, files)
    written = 0
    with store_errors(spec):
        for batch in newest(spec, files, record):
            store.write_to_online_store(spec.view, df=batch.to_pandas())
            written += batch.num_rows
            progress(f"online: {written:,} customers")
        progress(_remove_departed(spec, files, store, record, streamed))
    pack(spec, files)
    return written


def _remove_departed(
    spec: FeaturesConfig,
    files: Workspace,
    store: FeatureStore,
    record: Mapping[str, Any],
    streamed: Iterable[str],
) -> str:
    """Remove departed customers from the online store, except `streamed`; return their number as text."""
    keys = newest(spec, files, record, ["user_id"], rows=100_000)
    present = chain((user for batch in keys for user in batch["user_id"].to_pylist()), streamed)
    removed = online_store_of(spec).remove_departed(_place(spec, files), store, present)
    return f"online: {removed:,} customers removed who departed or are not eligible"


@contextmanager
def store_errors(spec: FeaturesConfig) -> Iterator[None]:
    """Converts errors of the online store's client to FeatureError."""
    errors = online_store_of(spec).errors
    try:
        yield
    except errors as error:
        raise FeatureError(f"features.online_store: {error}; check the store and materialize again") from None


def serving_yaml(spec: FeaturesConfig, files: Workspace) -> str:
    """The archive's feature_store.yaml. Its addresses are environment variables, which the reader expands."""
    registry = f"${{{REGISTRY_VARIABLE}}}"
    named = registry if isinstance(spec.registry, str) else {**spec.registry, "path": registry}
    online = {**spec.online_store, online_store_of(spec).address_key: f"${{{ONLINE_VARIABLE}}}"}
    return yaml.safe_dump(_config(spec, files, named, online), sort_keys=False)


def serving_environment(spec: FeaturesConfig, files: Workspace) -> dict[str, str]:
    """The variables that `serving_yaml` needs, for this workspace."""
    registry, online = _resolved_addresses(spec, files)
    return {
        REGISTRY_VARIABLE: registry if isinstance(registry, str) else str(registry["path"]),
        ONLINE_VARIABLE: str(online[online_store_of(spec).address_key]),
    }


def connect(spec: FeaturesConfig, files: Workspace) -> FeatureStore:
    """The store by its addresses, whether or not anything is registered in it."""
    return FeatureStore(
        config=RepoConfig(**_config(spec, files, *_resolved_addresses(spec, files)), repo_path=files.feast)
    )


def _config(
    spec: FeaturesConfig, files: Workspace, registry: str | dict[str, Any], online: dict[str, Any]
) -> dict[str, Any]:
    return {
        "project": project_of(spec, files),
        "provider": "local",
        "registry": registry,
        "online_store": online,
        "offline_store": dict(spec.offline_store),
        # without a batch size Feast 0.67 writes only the first Arrow chunk of a materialization
        "materialization": {"online_write_batch_size": ROWS},
        "entity_key_serialization_version": 3,
    }


def _resolved_addresses(
    spec: FeaturesConfig, files: Workspace
) -> tuple[str | dict[str, Any], dict[str, Any]]:
    """Registry and online store, with relative paths resolved to the workspace's feast folder."""

    def below(address: str) -> str:
        return address if "://" in address else str(files.feast / address)

    registry: str | dict[str, Any]
    if isinstance(spec.registry, str):
        registry = below(spec.registry)
    else:
        registry = {**spec.registry, "path": below(str(spec.registry["path"]))}
    online = dict(spec.online_store)
    if "path" in online:
        online["path"] = below(str(online["path"]))
    return registry, online


def pack(spec: FeaturesConfig, files: Workspace) -> int:
    """Pack the customers who were written since the last call, and return their number. It is 0 unless the
    online store is SQLite."""
    with store_errors(spec):
        return online_store_of(spec).pack(_place(spec, files))


def _place(spec: FeaturesConfig, files: Workspace) -> Place:
    return place_of(spec, files, spec.view, [(feature.name, feature.dtype) for feature in spec.features])


def place_of(spec: FeaturesConfig, files: Workspace, view: str, stored: Sequence[tuple[str, str]]) -> Place:
    """The place of a view with the features `stored` (names and types). `spec` gives the addresses."""
    return Place(view, stored, project_of(spec, files), serving_environment(spec, files)[ONLINE_VARIABLE])

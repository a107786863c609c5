"""Reads any other online store by Feast itself, which is slower, in a separate thread with a deadline."""

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from handlers.bundle import BundleError
from handlers.store.config import StoreConfig
from handlers.store.deadline import OneAtATime
from handlers.store.redis_address import teach_feast
from handlers.store.stored import FeatureStoreUnavailable, Stored

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore

NOT_FOUND = 3  # feast.protos...FieldStatus
FIRST_READ_S = 30.0
"""Timeout of the first read, in which Feast imports most of a store's client."""
_EPOCH = datetime.fromtimestamp(0, tz=UTC)


class FeastReader:
    name = "feast"

    def __init__(
        self, store: "FeatureStore", service: "FeatureService", features: Sequence[str], join_key: str
    ) -> None:
        self._store = store
        self._service = service
        self._features = list(features)
        self._join_key = join_key
        self._thread = OneAtATime()
        with suppress(FeatureStoreUnavailable):  # the first request fails in the same way
            self.read(["u_" + "0" * 32], time.monotonic() + FIRST_READ_S)

    def read(self, ids: Sequence[str], deadline: float) -> Stored:
        return self._thread.call(lambda: self._read(ids), deadline)

    def close(self) -> None:
        """Feast has no function that closes its connections."""

    def _read(self, ids: Sequence[str]) -> Stored:
        rows = [{self._join_key: user_id} for user_id in ids]
        try:
            response = self._store.get_online_features(features=self._service, entity_rows=rows)
        except Exception as error:  # clients of stores raise errors of many types
            raise FeatureStoreUnavailable(type(error).__name__) from error
        found = response.to_dict()
        columns: dict[str, list[Any]] = {name: found[name] for name in self._features}
        nothing = [all(value is None for value in row) for row in zip(*columns.values(), strict=True)]
        return Stored(columns, _timestamps(response.proto, self._features, nothing))


def open_feast(config: StoreConfig, service_name: str) -> tuple["FeatureStore", "FeatureService"]:
    """The store of feature_store.yaml, and its FeatureService. Raises BundleError when there is no such
    service.
    """
    feature_store_not_found, feature_store = _import_feast()
    store = feature_store(config=_repo_config(config))
    try:
        return store, store.get_feature_service(service_name)
    except feature_store_not_found:
        raise BundleError(
            f"feature store: no FeatureService {service_name} in its registry; build the features first"
        ) from None


def _repo_config(config: StoreConfig) -> Any:
    """Feast's config from the parsed content. Feast would expand environment variables in the file's text."""
    from feast.repo_config import RepoConfig

    if config.online.get("type") == "redis":
        teach_feast()
    # a server reads no history, and the client of the offline store is not installed where it runs
    content = {**config.content, "offline_store": {"type": "dask"}}
    for block, what in (("registry", config.registry), ("online_store", config.online)):
        if (path := what.get("path")) is not None and "://" not in str(path):
            content[block] = {**what, "path": str(config.path(str(path)))}
    return RepoConfig(**content, repo_path=config.folder)


def _timestamps(proto: Any, features: Sequence[str], nothing: Sequence[bool]) -> list[datetime | None]:
    """The event time of each vector; None for an unknown customer, for whom some stores return time 0."""
    names = list(proto.metadata.feature_names.val)
    results = [proto.results[names.index(name)] for name in features]
    moments = [moment.ToDatetime(tzinfo=UTC) for moment in results[0].event_timestamps]
    return [
        None
        if all(result.statuses[row] == NOT_FOUND for result in results) or (nothing[row] and moment == _EPOCH)
        else moment
        for row, moment in enumerate(moments)
    ]


def _import_feast() -> tuple[type[Exception], type["FeatureStore"]]:
    """Import Feast without typeguard's instrumentation, which takes most of the time of the import."""
    import typeguard

    def unchanged(target: Any = None, **_: Any) -> Any:
        return (lambda decorated: decorated) if target is None else target

    original = typeguard.typechecked
    typeguard.typechecked = unchanged
    try:
        from feast import FeatureStore
        from feast.errors import FeatureServiceNotFoundException
    finally:
        typeguard.typechecked = original
    return FeatureServiceNotFoundException, FeatureStore

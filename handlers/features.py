"""The online read: all customers of a TorchServe batch in one call to Feast."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from handlers.bundle import Bundle, BundleError, check_store

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore

Status = Literal["ok", "stale", "unknown"]
NOT_FOUND = 3  # feast.protos...FieldStatus


class FeatureStoreUnavailable(RuntimeError):
    """Feast or the store behind it failed; the customers of this read cannot be scored now."""


@dataclass(frozen=True)
class Vectors:
    """One feature vector a customer, in the order asked for."""

    ids: tuple[str, ...]
    columns: Mapping[str, Sequence[Any]]
    """Name -> a value a customer; None where the store holds null, and everywhere for an unknown one."""
    timestamps: tuple[datetime | None, ...]
    """The moment each vector looks back from (UTC)."""
    status: tuple[Status, ...]


def open_store(model_dir: Path, bundle: Bundle) -> tuple["FeatureStore", "FeatureService"]:
    """The store that feature_store.yaml names, and the FeatureService that the model was trained with.

    Raises BundleError when the store cannot be opened or was made from another feature spec.
    """
    _require_environment(model_dir / "feature_store.yaml")
    feature_store_not_found, feature_store = _import_feast()
    service_name = str(bundle.spec["service"])
    store = feature_store(repo_path=str(model_dir))
    try:
        service = store.get_feature_service(service_name)
    except feature_store_not_found:
        raise BundleError(
            f"feature store: no FeatureService {service_name} in its registry; build the features first"
        ) from None
    check_store(bundle, service_name, service.tags)
    return store, service


def read(
    store: "FeatureStore", service: "FeatureService", bundle: Bundle, ids: Sequence[str], now: datetime
) -> Vectors:
    """Feature vectors of the masked `ids` (each once), with one call to Feast whatever their number.

    Feast keeps neither our order of features nor the ttl online: values are taken by name, and a vector
    older than the spec's ttl at `now` is marked `stale`. Raises FeatureStoreUnavailable.
    """
    if not ids:
        return Vectors((), dict.fromkeys(bundle.inputs, ()), (), ())
    try:
        response = store.get_online_features(
            features=service, entity_rows=[{bundle.join_key: user_id} for user_id in ids]
        )
    except Exception as error:  # what a store's client raises is open-ended; all of it means: no features now
        raise FeatureStoreUnavailable(type(error).__name__) from error
    columns = response.to_dict()
    timestamps = _timestamps(response.proto, str(bundle.spec["features"][0]["name"]))
    oldest = now - timedelta(days=float(bundle.spec["ttl_days"]))
    return Vectors(
        ids=tuple(ids),
        columns={name: columns[name] for name in bundle.inputs},
        timestamps=timestamps,
        status=tuple("unknown" if t is None else "stale" if t < oldest else "ok" for t in timestamps),
    )


def _timestamps(proto: Any, stored: str) -> tuple[datetime | None, ...]:
    """When each row was taken, None for an unknown customer: one view, so any stored feature tells."""
    result = proto.results[list(proto.metadata.feature_names.val).index(stored)]
    return tuple(
        None if status == NOT_FOUND else moment.ToDatetime(tzinfo=UTC)
        for status, moment in zip(result.statuses, result.event_timestamps, strict=True)
    )


def _require_environment(config: Path) -> None:
    """Feast leaves an unset `${NAME}` as it is and makes an empty registry of that name: say it instead."""
    try:
        text = config.read_text(encoding="utf-8")
    except OSError as error:
        raise BundleError(f"feature_store.yaml: {error.strerror}; package the model again") from None
    for name in re.findall(r"\$\{(\w+)\}", text):
        if not os.environ.get(name):
            raise BundleError(f"feature_store.yaml: the environment variable {name} is not set")


def _import_feast() -> tuple[type[Exception], type["FeatureStore"]]:
    """Import Feast without typeguard's instrumentation, which is most of what its import costs."""
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

"""Opens the store of feature_store.yaml: chooses the reader, and compares the store's spec with the model's.

SQLite and Redis in Feast's layout are read directly (`sqlite_reader`, `redis_reader`), every other store by
Feast itself (`feast_reader`).
"""

import os
from collections.abc import Mapping
from pathlib import Path

from handlers.bundle import Bundle, check_store
from handlers.settings import read_settings
from handlers.store.config import StoreConfig, read_store_config
from handlers.store.reader import OnlineFeatures
from handlers.store.registry import service_tags
from handlers.store.stored import Reader, UnknownLayout


def open_features(
    model_dir: Path, bundle: Bundle, environment: Mapping[str, str] | None = None
) -> OnlineFeatures:
    """Open the store of feature_store.yaml in `model_dir`, and check that it has the bundle's spec.

    `environment` is `os.environ` by default. Feast itself, where it has to read, uses only `os.environ`.
    Raises BundleError when the store has another spec, or cannot be opened for a permanent reason.
    """
    environment = os.environ if environment is None else environment
    timeout_s = read_settings(environment).store_timeout_ms / 1000
    config = read_store_config(model_dir, environment)
    service = str(bundle.spec["service"])
    if (tags := service_tags(config, service)) is not None:
        check_store(bundle, service, tags)
    reader = _direct_reader(config, bundle, timeout_s)
    if reader is None or tags is None:
        from handlers.store.feast_reader import FeastReader, open_feast

        store, feature_service = open_feast(config, service)
        check_store(bundle, service, feature_service.tags)
        if reader is None:
            names = [str(feature["name"]) for feature in bundle.spec["features"]]
            reader = FeastReader(store, feature_service, names, bundle.join_key)
    return OnlineFeatures(reader, bundle, timeout_s)


def _direct_reader(config: StoreConfig, bundle: Bundle, timeout_s: float) -> Reader | None:
    """The reader for the store's type; None when only Feast can read the store."""
    view = str(bundle.spec["view"])
    features = [(str(feature["name"]), str(feature["dtype"])) for feature in bundle.spec["features"]]
    kind, online = config.online.get("type"), config.online
    try:
        if config.readable_without_feast and kind == "sqlite" and set(online) <= {"type", "path"}:
            from handlers.store.sqlite_reader import SqliteReader

            path = config.path(str(online.get("path", "data/online.db")))
            return SqliteReader(path, f"{config.project}_{view}", features, bundle.join_key, timeout_s)
        if config.readable_without_feast and kind == "redis":
            from handlers.store.redis_address import address_of
            from handlers.store.redis_reader import RedisReader

            return RedisReader(address_of(online), config.project, view, features, bundle.join_key)
    except (UnknownLayout, ImportError):
        return None
    return None

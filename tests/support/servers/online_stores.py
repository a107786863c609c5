"""Real online stores, in SQLite or Redis, that Feast itself has filled."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from features import packing
from features.lean_feast import FeatureStore, quiet
from features.repo.definitions import define
from features.spec import Feature, FeaturesConfig, Ratio
from handlers.bundle import Bundle
from handlers.store.packed import Layout

# isort: split
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SPEC = FeaturesConfig(
    service="online_v1",
    ttl_days=35,
    features=(
        Feature(name="orders", dtype="int64", default=0),
        Feature(name="spend", dtype="float64"),
        Feature(name="tenure", dtype="float64"),
        Feature(name="segment", dtype="string"),
        Feature(name="visits", dtype="int64", default=0),
        Feature(name="town", dtype="string", default="nowhere"),
    ),
    derived=(Ratio(name="spend_a_month", numerator="spend", denominator="tenure", floor=0.5),),
)
_FIELD = {"int64": "int64_val", "float64": "double_val", "string": "string_val"}
Row = Mapping[str, Any]


def bundle_of(spec: FeaturesConfig = SPEC) -> Bundle:
    """What the handler knows of a model; nothing here scores."""
    return Bundle(
        model_version="1",
        program=Path("none"),
        join_key="user_id",
        id_type="string",
        spec=spec.contract(),
        spec_digest=spec.digest(),
        numeric=spec.numeric,
        vocabulary=dict.fromkeys(spec.categorical, ()),
        threshold=0.5,
    )


@dataclass(frozen=True)
class FilledStore:
    """One Feast store on disk, with its feature_store.yaml as the archive would carry it."""

    folder: Path
    online: Mapping[str, Any]
    spec: FeaturesConfig = SPEC
    packs: bool = False
    """Whether whoever is written is packed at once (SQLite)."""

    @cached_property
    def feast(self) -> FeatureStore:
        return FeatureStore(config=self._config())

    @cached_property
    def writer(self) -> SqliteOnlineStore | RedisOnlineStore:
        return SqliteOnlineStore() if self.online["type"] == "sqlite" else RedisOnlineStore()

    @property
    def database(self) -> Path:
        return self.folder / str(self.online["path"])

    def write(self, rows: Mapping[str, Row], moment: datetime = NOW - timedelta(days=1)) -> None:
        """Customers (id -> feature -> value; None is Feast's null) as Feast writes them."""
        store = self.feast
        data = [(key_of(user_id), self.values(row), moment, moment) for user_id, row in rows.items()]
        self.writer.online_write_batch(store.config, store.get_feature_view(self.spec.view), data, None)
        if self.packs:
            self.pack()

    @property
    def table(self) -> str:
        return f"tiny_{self.spec.view}"

    @property
    def layout(self) -> Layout:
        return Layout([(feature.name, feature.dtype) for feature in self.spec.features])

    def prepare(self) -> None:
        packing.prepare(self.database, self.table, self.layout.features)

    def pack(self) -> int:
        return packing.pack(self.database, self.table, self.layout.features)

    def packed(self) -> int:
        """How many customers are."""
        with closing(sqlite3.connect(self.database)) as connection:
            [(count,)] = connection.execute(f'SELECT count(*) FROM "{self.layout.table(self.table)}"')
        return int(count)

    def values(self, row: Row) -> dict[str, Any]:
        fields = {feature.name: _FIELD[feature.dtype] for feature in self.spec.features}
        return {
            name: value
            if isinstance(value, Value)
            else Value(**({} if value is None else {fields[name]: value}))
            for name, value in row.items()
        }

    def by_feast(self, store: FeatureStore, ids: Sequence[str]) -> Any:
        """The response of `get_online_features`."""
        service = store.get_feature_service(self.spec.service)
        with quiet():
            return store.get_online_features(
                features=service, entity_rows=[{"user_id": user_id} for user_id in ids]
            )

    def _config(self) -> RepoConfig:
        return RepoConfig(
            project="tiny",
            provider="local",
            registry=str(self.folder / "registry.db"),
            online_store=dict(self.online),
            offline_store={"type": "duckdb"},
            entity_key_serialization_version=3,
            repo_path=self.folder,
        )


def filled_store(
    folder: Path,
    online: Mapping[str, Any],
    spec: FeaturesConfig = SPEC,
    more: str = "",
    packs: bool = False,
) -> FilledStore:
    """Applied and empty."""
    store = FilledStore(folder, online, spec, packs)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").write_text(
        f"project: tiny\nprovider: local\nregistry: registry.db\nonline_store: {dict(online)!r}\n"
        f"offline_store: {{type: duckdb}}\nentity_key_serialization_version: 3\n{more}"
    )
    with quiet():
        store.feast.apply(define(spec, folder / "none.parquet").objects())
    if packs:
        store.prepare()
    return store


def key_of(user_id: str) -> EntityKey:
    return EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=user_id)])

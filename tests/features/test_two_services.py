"""Two feature services beside each other in one store, and the removal of one of them."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from core.errors import FeatureError
from core.workspace import ServiceWorkspace, Workspace
from features.build import build_features, read_feature_manifest
from features.erase import count_online, erase
from features.parity import read_online
from features.prune import remove_service
from features.rows import inputs_at
from features.spec import FeaturesConfig, spec_of
from features.store import (
    apply,
    connect,
    materialize,
    open_store,
    registered_services,
    serving_environment,
    serving_yaml,
)
from handlers.bundle import Bundle, BundleError
from handlers.store.opening import open_features
from handlers.store.reader import OnlineFeatures
from support.feature_records import CONFIG, write_labelled, write_transactions
from support.servers.redis_servers import redis_server

V1, V2 = "churn_prediction_v1", "churn_prediction_v2"
SHIPPED = yaml.safe_load(CONFIG.read_text()) | {"threads": 1, "horizon_days": 30, "eligible": None}
USERS = [f"u_{number:032x}" for number in range(6)]
MONTH = {"name": "recent", "dtype": "float64", "default": 0.0, "sql": "sum(amount) filter (age_days <= 30)"}
WEEKS = MONTH | {"sql": "sum(amount) filter (age_days <= 14)"}
COUNT = {"name": "total_purchases", "dtype": "int64", "default": 0, "sql": "count(*)"}
LARGEST = {"name": "largest", "dtype": "float64", "sql": "max(amount)"}
RATIO = {"name": "recent_share", "numerator": "recent", "denominator": "total_purchases"}


@pytest.fixture(params=["sqlite", "redis"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """SQLite with a registry in a file, or Redis with a registry in a database, as in production."""
    if request.param == "sqlite":
        yield {"online_store": {"type": "sqlite", "path": "online.db"}}
    else:
        with redis_server(tmp_path) as server:
            registry = {"registry_type": "sql", "path": f"sqlite:///{tmp_path}/registry.db"}
            yield {"online_store": server.online, "registry": registry}


def spec(service: str, *features: dict[str, Any], **changes: Any) -> FeaturesConfig:
    content = {"service": service, "features": features, "derived": [RATIO]}
    return FeaturesConfig.model_validate(SHIPPED | content | changes)


def log() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    days = pd.date_range("2020-01-01", "2021-01-01", freq="9D", tz="UTC")
    rows = [(user, day, float(round(draw.gamma(2, 20), 2))) for user in USERS for day in days]
    return pd.DataFrame(rows, columns=["user_id", "timestamp", "amount"]).assign(quantity=1.0)


def online_values(one: FeaturesConfig, files: Workspace) -> dict[str, list[Any]]:
    return read_online(one, open_store(one, files), USERS)


def handler_of(one: FeaturesConfig, files: Workspace, folder: Path) -> OnlineFeatures:
    """What a server with an archive of this spec reads from, by its own reader of the store."""
    folder.mkdir(exist_ok=True)
    (folder / "feature_store.yaml").write_text(serving_yaml(one, files))
    bundle = Bundle("v", folder, "user_id", "integer", one.contract(), one.digest(), one.numeric, {}, 0.5)
    return open_features(folder, bundle, serving_environment(one, files))


def newest_snapshot(files: Workspace) -> pd.DataFrame:
    rows = pq.read_table(files.snapshots).to_pandas()
    return rows[rows["event_timestamp"] == rows["event_timestamp"].max()].set_index("user_id").loc[USERS]


def test_a_service_with_a_number_has_views_of_its_own() -> None:
    first, second = spec(V1, COUNT, MONTH), spec(V2, COUNT, WEEKS)
    assert (first.view, first.derived_view) == ("user_features", "user_derived")
    assert (second.view, second.derived_view) == ("user_features_v2", "user_derived_v2")
    assert spec(V2, COUNT, MONTH, view="mine").view == "mine"
    assert spec("churn_spring", COUNT, MONTH).view == "user_features"


def test_the_spec_of_an_archive_has_its_digest_also_on_the_stores_of_another_one(
    stores: dict[str, Any],
) -> None:
    first, second = spec(V1, COUNT, MONTH), spec(V2, COUNT, WEEKS, **stores)
    found = spec_of(first.contract(), second)
    assert found.digest() == first.digest() and found.online_store == stores["online_store"]
    assert spec_of(second.contract(), second) is second
    with pytest.raises(
        FeatureError, match=f"^features.service {V1}: this release does not accept the spec in"
    ):
        spec_of(first.contract() | {"colour": "blue"}, second)


def test_both_are_online_and_neither_changes_the_other(tmp_path: Path, stores: dict[str, Any]) -> None:
    first, second = (
        spec(V1, COUNT, MONTH, **stores),
        spec(V2, WEEKS, LARGEST, COUNT, **stores),
    )
    files = write_transactions(tmp_path / "var", log())
    own = ServiceWorkspace(files.root, V1)
    for one, place in ((first, own), (second, files)):
        build_features(one, place)
        materialize(one, place, lambda _: None)
    for one, place in ((first, own), (second, files)):
        found, built = online_values(one, files), newest_snapshot(place)
        assert {len(values) for values in found.values()} == {len(USERS)}
        for feature in one.features:
            assert found[feature.name] == built[feature.name].tolist()
        assert found["recent_share"] == (built["recent"] / built["total_purchases"].clip(lower=1)).tolist()
    assert online_values(first, files)["recent"] != online_values(second, files)["recent"]
    for number, one in enumerate((first, second)):
        handler = handler_of(one, files, tmp_path / f"archive-{number}")
        assert handler.health()["reader"] == stores["online_store"]["type"]
        moment = datetime.fromisoformat(read_feature_manifest(files)["latest"])
        vectors = handler.read(USERS, moment)
        assert set(vectors.status) == {"ok"}
        assert {name: list(vectors.columns[name]) for name in one.numeric} == online_values(one, files)
    assert registered_services(second, files) == {V1: first.digest(), V2: second.digest()}

    # an erasure reaches both, also a service that nothing needs any more
    assert count_online(second, files, USERS[:2]) == 4
    erase(second, files, USERS[:1])
    assert count_online(second, files, USERS[:2]) == 2
    for one, place in ((first, own), (second, files)):
        assert online_values(one, files)["total_purchases"][:1] == [None]
        assert (
            online_values(one, files)["total_purchases"][1:]
            == newest_snapshot(place)["total_purchases"].tolist()[1:]
        )
        materialize(one, place, lambda _: None)

    before = online_values(second, files)
    assert remove_service(second, files, V1) == len(USERS)
    assert online_values(second, files) == before
    assert registered_services(second, files) == {V2: second.digest()} and not own.features.exists()
    with pytest.raises(BundleError, match=f"no FeatureService {V1} in its registry"):
        handler_of(first, files, tmp_path / "archive-0")
    assert handler_of(second, files, tmp_path / "archive-1").read(USERS, moment).status == ("ok",) * len(
        USERS
    )
    store = connect(second, files)
    assert [view.name for view in store.list_feature_views()] == ["user_features_v2"]
    assert [view.name for view in store.list_on_demand_feature_views()] == ["user_derived_v2"]
    assert {source.name for source in store.list_data_sources()} == {
        "user_features_v2_push", "user_features_v2_snapshots",
    }  # fmt: skip
    apply(first, own)  # the values are gone, and not only their definitions
    assert online_values(first, files)["total_purchases"] == [None] * len(USERS)
    assert online_values(second, files) == before


def test_a_view_that_another_service_has_stays(tmp_path: Path) -> None:
    first = spec("spring", COUNT, MONTH)
    second = first.model_copy(update={"service": "summer"})
    files = write_transactions(tmp_path / "var", log())
    for one in (first, second):
        build_features(one, files)
        materialize(one, files, lambda _: None)
    before = online_values(second, files)
    assert remove_service(second, files, "spring") == 0
    assert online_values(second, files) == before and list(registered_services(second, files)) == ["summer"]


def test_inputs_of_another_spec_for_a_labelled_table(tmp_path: Path) -> None:
    moments = pd.to_datetime(["2020-01-01", "2020-02-01", "2020-02-01"], utc=True)
    table = pd.DataFrame(
        {
            "user_id": [USERS[0], USERS[0], USERS[1]],
            "event_timestamp": moments,
            "target": [0, 1, 0],
            "age": [30.0, 31.0, None],
            "plan": ["a", "b", "c"],
        }
    )
    files = write_labelled(tmp_path / "var", table)
    features = [
        {"name": "decades", "dtype": "float64", "sql": "age / 10"},
        {"name": "plan", "dtype": "string"},
        {"name": "one", "dtype": "int64", "default": 2, "sql": "2"},
    ]
    half = {"name": "half", "numerator": "decades", "denominator": "one"}
    other = FeaturesConfig.model_validate(SHIPPED | {"features": features, "derived": [half]})
    found = inputs_at(other, files, table[["user_id", "event_timestamp"]].iloc[::-1])
    assert found["plan"].tolist() == ["c", "b", "a"]
    np.testing.assert_allclose(found["half"], [np.nan, 1.55, 1.5])


def test_inputs_of_another_spec_for_the_same_customers_and_moments(tmp_path: Path) -> None:
    files = write_transactions(tmp_path / "var", log())
    strict = spec(V1, COUNT, MONTH, eligible="total_purchases > 10")
    moments = [pd.Timestamp("2020-06-01", tz="UTC"), pd.Timestamp("2020-03-01", tz="UTC")]
    rows = pd.DataFrame([(user, at) for user in USERS[::-1] for at in moments],
                        columns=["user_id", "event_timestamp"])  # fmt: skip
    found = inputs_at(strict, files, rows)
    bought = log()
    for row, values in zip(rows.itertuples(), found.itertuples(), strict=True):
        mine = bought[(bought["user_id"] == row.user_id) & (bought["timestamp"] < row.event_timestamp)]
        recent = mine[row.event_timestamp - mine["timestamp"] <= pd.Timedelta(days=30)]["amount"].sum()
        assert values.total_purchases == len(mine)
        assert values.recent == pytest.approx(recent) and values.recent_share == pytest.approx(
            recent / len(mine)
        )
    assert not list(files.root.glob(".features-*"))
    stranger = rows.assign(user_id="u_" + "f" * 32)
    with pytest.raises(FeatureError, match=f"features.service {V1}: 12 of 12 rows have no records"):
        inputs_at(strict, files, stranger)

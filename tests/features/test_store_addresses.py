"""Addresses with special characters of YAML, shells or patterns are not changed."""

import os
from datetime import UTC, datetime

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from core.workspace import Workspace
from features.build import build_features
from features.history import training_set
from features.parity import check
from features.project import PROJECT, project_of
from features.spec import FeaturesConfig
from features.store import materialize, serving_environment, serving_yaml
from handlers.store.config import read_store_config
from handlers.store.opening import open_features
from handlers.store.redis_address import Node, Tls, address_of
from support.feature_records import CONFIG, write_transactions
from support.servers.online_stores import bundle_of
from support.servers.redis_servers import redis_server

SHIPPED = yaml.safe_load(CONFIG.read_text()) | {"threads": 1, "eligible": None}
NAMES = ["team #1", "a: b", "[1]*", 'it\'s "so" $HOME', "tab, {x}=1", "größe 100%"]


@pytest.fixture(scope="module")
def some(request):
    from support.feature_records import cdnow

    log = cdnow()
    return log[log["user_id"].isin(sorted(log["user_id"].unique())[:60])]


@pytest.mark.parametrize("name", NAMES)
def test_a_workspace_of_any_name_can_be_trained_and_served(tmp_path, some, name, monkeypatch):
    spec = FeaturesConfig.model_validate(SHIPPED)
    files = write_transactions(tmp_path / name, some)
    build_features(spec, files)
    assert materialize(spec, files) == 60
    assert len(training_set(spec, files)) > 0
    assert check(spec, files, 10).agree
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "feature_store.yaml").write_text(serving_yaml(spec, files), encoding="utf-8")
    environment = {**os.environ, **serving_environment(spec, files)}
    features = open_features(archive, bundle_of(spec), environment)
    vectors = features.read(sorted(some["user_id"].unique())[:3], datetime(1998, 7, 2, tzinfo=UTC))
    features.close()
    assert vectors.status == ("ok", "ok", "ok")


addresses = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1).filter(str.strip)


@given(addresses, addresses)
def test_the_value_of_a_variable_is_not_changed(tmp_path_factory, registry, online):
    folder = tmp_path_factory.mktemp("archive")
    store = {"type": "redis", "connection_string": "hidden"}
    spec = FeaturesConfig.model_validate(SHIPPED | {"online_store": store})
    (folder / "feature_store.yaml").write_text(serving_yaml(spec, Workspace(folder)), encoding="utf-8")
    environment = {"CHURN_FEAST_REGISTRY": registry, "CHURN_FEAST_ONLINE": online}
    found = read_store_config(folder, environment)
    assert (found.registry["path"], found.online["connection_string"]) == (registry, online)


@pytest.mark.parametrize(
    ("connection", "node"),
    [
        ("cache:6379", Node("cache", 6379)),
        ("[fd00::1]:6379,db=2", Node("fd00::1", 6379, 2)),
        ("cache:6379,password=a #b: $c'", Node("cache", 6379, password="a #b: $c'")),
        ('cache:6379,password="a,b=c",username=me', Node("cache", 6379, 0, "me", "a,b=c")),
        ("cache:6379,password=1e5", Node("cache", 6379, password="1e5")),
        ("cache:6379,password=true,db=1", Node("cache", 6379, 1, password="true")),
        ("cache:6379,ssl=true", Node("cache", 6379, tls=Tls())),
        (
            "cache:6379,ssl=true,ssl_ca_certs=/ca.pem,ssl_certfile=/c.pem,ssl_keyfile=/k.pem",
            Node("cache", 6379, tls=Tls("/ca.pem", "/c.pem", "/k.pem")),
        ),
    ],
)
def test_addresses_of_redis(connection, node):
    address = address_of({"type": "redis", "connection_string": connection})
    assert (address.kind, address.server, address.nodes) == ("redis", node, (node,))


@pytest.mark.parametrize("password", ["a #b: c", "p,q", "1e5", "$HOME${HOME}"])
def test_redis_with_an_odd_password_is_written_and_read(tmp_path, some, password):
    from redis import Redis

    with redis_server(tmp_path) as server:
        with Redis(host="127.0.0.1", port=server.port) as client:
            client.config_set("requirepass", password)
        written = f'"{password}"' if "," in password else password
        connection = f"127.0.0.1:{server.port},password={written}"
        online = {"type": "redis", "connection_string": connection}
        spec = FeaturesConfig.model_validate(SHIPPED | {"online_store": online})
        files = write_transactions(tmp_path / "var", some)
        build_features(spec, files)
        assert materialize(spec, files) == 60
        archive = tmp_path / "archive"
        archive.mkdir()
        (archive / "feature_store.yaml").write_text(serving_yaml(spec, files), encoding="utf-8")
        features = open_features(archive, bundle_of(spec), serving_environment(spec, files))
        vectors = features.read(sorted(some["user_id"].unique())[:2], datetime(1998, 7, 2, tzinfo=UTC))
        features.close()
    assert vectors.status == ("ok", "ok")


def test_each_workspace_on_a_shared_store_has_its_own_project(tmp_path):
    own = FeaturesConfig.model_validate(SHIPPED)
    redis = FeaturesConfig.model_validate(
        SHIPPED | {"online_store": {"type": "redis", "connection_string": "cache:6379"}}
    )
    one, other = Workspace(tmp_path / "one"), Workspace(tmp_path / "other")
    assert project_of(own, one) == project_of(own, other) == PROJECT
    assert project_of(redis, one) != project_of(redis, other)
    assert project_of(redis, one).startswith(f"{PROJECT}_")
    assert project_of(redis.model_copy(update={"project": "shop"}), one) == "shop"
    assert yaml.safe_load(serving_yaml(redis, one))["project"] == project_of(redis, one)
    before = {"project": PROJECT, "online_store": {"type": "redis"}}
    one.feast.mkdir(parents=True)
    (one.feast / "feature_store.yaml").write_text(yaml.safe_dump(before))
    assert project_of(redis, one) == PROJECT  # as in earlier releases

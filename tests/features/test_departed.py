"""Departed customers (erased from the source, or not eligible any more) are removed from the online store."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
import yaml

from core.errors import FeatureError
from core.workspace import Workspace
from features.build import build_features
from features.parity import read_online
from features.spec import FeaturesConfig
from features.store import (
    ONLINE_VARIABLE,
    materialize,
    open_store,
    serving_environment,
    serving_yaml,
)
from support.feature_records import CONFIG, write_transactions
from support.servers.redis_servers import redis_server

SHIPPED = yaml.safe_load(CONFIG.read_text()) | {"threads": 1, "horizon_days": 30, "eligible": None}


@pytest.fixture(params=["sqlite", "redis"])
def online(request, tmp_path) -> Iterator[dict[str, str]]:
    if request.param == "sqlite":
        yield {"type": "sqlite", "path": "online.db"}
    else:
        with redis_server(tmp_path) as server:
            yield server.online


def spec_of(online, **settings) -> FeaturesConfig:
    return FeaturesConfig.model_validate(SHIPPED | {"online_store": online} | settings)


def log_of(*users: str) -> pd.DataFrame:
    """The n-th customer bought every 30 days until 25 n days ago."""
    days = pd.date_range("2020-01-01", "2021-01-01", freq="30D", tz="UTC")
    rows = [(user, day) for number, user in enumerate(sorted(users)) for day in days[: len(days) - number]]
    return pd.DataFrame(rows, columns=["user_id", "timestamp"]).assign(amount=10.0, quantity=1.0)


def found_online(spec: FeaturesConfig, files: Workspace, users: list[str]) -> list[str]:
    found = read_online(spec, open_store(spec, files), users)["total_purchases"]
    return [user for user, purchases in zip(users, found, strict=True) if purchases is not None]


@pytest.mark.parametrize(
    ("online", "complaint"),
    [
        (
            {"type": "milvus", "path": "online.db"},
            r"^features\.online_store: customers cannot be erased from a store of type milvus; use sqlite",
        ),
        ({"type": "redis"}, r"^features\.online_store: give the address of redis as connection_string$"),
    ],
)
def test_a_store_from_which_customers_cannot_be_erased_is_refused(tmp_path, online, complaint):
    files = write_transactions(tmp_path / "var", log_of(*USERS))
    build_features(spec_of({"type": "sqlite", "path": "online.db"}), files)
    for act in (materialize, serving_environment, serving_yaml):
        with pytest.raises(FeatureError, match=complaint):
            act(spec_of(online), files)
    assert not files.feast.exists()


USERS = [f"u_{number:032x}" for number in range(8)]


def test_erased_and_not_eligible_customers_are_removed(tmp_path, online):
    spec = spec_of(online)
    files = write_transactions(tmp_path / "var", log_of(*USERS))
    build_features(spec, files)
    assert materialize(spec, files) == 8
    assert found_online(spec, files, USERS) == USERS

    log = log_of(*USERS)
    write_transactions(tmp_path / "var", log[log["user_id"] != USERS[0]])  # the newest row is removed too
    build_features(spec, files)
    messages: list[str] = []
    assert materialize(spec, files, messages.append) == 7
    assert found_online(spec, files, USERS) == USERS[1:]
    assert "online: 1 customers removed who departed or are not eligible" in messages

    strict = spec_of(online, eligible="recency_days <= 95")
    build_features(strict, files)
    materialize(strict, files)
    snapshots = pd.read_parquet(files.snapshots)
    newest = snapshots[snapshots["event_timestamp"] == snapshots["event_timestamp"].max()]
    assert found_online(strict, files, USERS) == sorted(newest["user_id"]) == USERS[1:5]
    assert materialize(strict, files, messages.append) == 4
    assert messages[-1] == "online: 0 customers removed who departed or are not eligible"


def test_two_workspaces_on_one_redis_do_not_affect_each_other(tmp_path):
    with redis_server(tmp_path) as server:
        spec = spec_of(server.online)
        one = write_transactions(tmp_path / "one", log_of(*USERS[:4]))
        other = write_transactions(tmp_path / "other", log_of(*USERS[2:]))
        for files in (one, other):
            build_features(spec, files)
        assert (materialize(spec, one), materialize(spec, other), materialize(spec, one)) == (4, 6, 4)
        assert found_online(spec, one, USERS) == USERS[:4]
        assert found_online(spec, other, USERS) == USERS[2:]
        named = spec_of(server.online, project="shop")
        assert materialize(named, one) == 4
        assert found_online(spec, other, USERS) == USERS[2:]


def test_no_byte_of_an_erased_customer_remains_in_the_file(tmp_path):
    """Also not in pages that SQLite marks as free."""
    spec = spec_of({"type": "sqlite", "path": "online.db"})
    files = write_transactions(tmp_path / "var", log_of(*USERS))
    build_features(spec, files)
    materialize(spec, files)
    write_transactions(tmp_path / "var", log_of(*USERS[:5]))
    build_features(spec, files)
    materialize(spec, files)
    database = Path(serving_environment(spec, files)[ONLINE_VARIABLE])
    with closing(sqlite3.connect(database)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        counts = {
            name: connection.execute(f'SELECT count(DISTINCT entity_key) FROM "{name}"').fetchone()[0]
            for name in tables
        }
    assert set(counts.values()) == {5}
    held = b"".join(file.read_bytes() for file in database.parent.glob("online.db*"))
    assert USERS[0].encode() in held
    assert USERS[7].encode() not in held

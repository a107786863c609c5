"""Direct reads return the same as Feast's `get_online_features`, from stores that Feast has filled."""

import math
import os
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.store import wire
from handlers.store.config import read_store_config
from handlers.store.opening import open_features
from handlers.store.reader import OnlineFeatures
from handlers.store.registry import service_tags
from support.servers.online_stores import (
    NOW,
    SPEC,
    FilledStore,
    bundle_of,
    filled_store,
    key_of,
)
from support.servers.redis_servers import redis_server

# isort: split
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

FULL = {"orders": 3, "spend": 12.5, "tenure": 0.25, "segment": "gold", "visits": 0, "town": "Łódź"}
NUMBERS = (
    st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, 1.7976931348623157e308]) | st.floats()
)
WHOLE = st.sampled_from([0, 1, -1, 127, 128, 2**31, -(2**31), 2**63 - 1, -(2**63)]) | st.integers(
    -(2**63), 2**63 - 1
)
# names of features inside a text, and texts whose length needs more than one byte
TEXTS = st.text(max_size=40) | st.sampled_from(
    ["", "spend", "orders", "xtown\x12\x03abc", "a" * 127, "b" * 128, "ü" * 300, "\x00", ")"]
)
ROWS = st.fixed_dictionaries(
    {
        "orders": st.none() | WHOLE,
        "spend": st.none() | NUMBERS,
        "tenure": st.none() | NUMBERS,
        "segment": st.none() | TEXTS,
        "visits": st.none() | WHOLE,
        "town": st.none() | TEXTS,
    }
)
AGES = st.integers(0, 60 * 86_400)
FRESH_ID = count()


@pytest.fixture(scope="module", params=["sqlite", "packed", "redis"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilledStore]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param != "redis":
        online = {"type": "sqlite", "path": "online.db"}
        yield filled_store(folder, online, packs=request.param == "packed")
        return
    with redis_server(folder) as server:
        yield filled_store(folder, server.online)


@pytest.fixture(scope="module")
def features(store: FilledStore) -> Iterator[OnlineFeatures]:
    opened = open_features(store.folder, bundle_of(), {"CHURN_STORE_TIMEOUT_MS": "20000"})
    assert opened.reader.name == store.online["type"]
    yield opened
    opened.close()


def bits(value: Any) -> Any:
    return ("float", struct.pack("<d", value)) if isinstance(value, float) else (type(value).__name__, value)


def assert_as_feast(store: FilledStore, features: OnlineFeatures, ids: list[str]) -> None:
    import time

    response = store.by_feast(store.feast, ids)
    expected = response.to_dict()
    ours = features.reader.read(ids, time.monotonic() + 20)
    for name, column in ours.columns.items():
        assert list(map(bits, column)) == list(map(bits, expected[name])), name
    names = list(response.proto.metadata.feature_names.val)
    known = response.proto.results[names.index("spend")]
    for at, moment in enumerate(ours.timestamps):
        if moment is None:  # for Redis, Feast returns nulls with a time in 1970
            assert known.statuses[at] == 3 or known.event_timestamps[at].seconds == 0
        else:
            assert moment == known.event_timestamps[at].ToDatetime(tzinfo=UTC)
    assert not ours.corrupt


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(customers=st.lists(st.tuples(ROWS, AGES), min_size=1, max_size=8))
def test_every_value_equals_feast_s(store: FilledStore, features: OnlineFeatures, customers: Any) -> None:
    ids = []
    for row, age in customers:
        ids.append(f"u_{next(FRESH_ID)}_é")
        store.write({ids[-1]: row}, NOW - timedelta(seconds=age))
    assert_as_feast(store, features, [*ids, "nobody"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.tuples(st.none() | NUMBERS, st.none() | NUMBERS))
def test_a_derived_feature_equals_that_of_the_on_demand_view(
    store: FilledStore, features: OnlineFeatures, parts: Any
) -> None:
    user_id = f"d_{next(FRESH_ID)}"
    store.write({user_id: FULL | {"spend": parts[0], "tenure": parts[1]}})
    [expected] = store.by_feast(store.feast, [user_id]).to_dict()["spend_a_month"]
    [found] = features.read([user_id], NOW).columns["spend_a_month"]
    assert bits(found) == bits(expected)


def test_each_of_many_customers_gets_their_own_values(store: FilledStore, features: OnlineFeatures) -> None:
    rows = {
        f"m_{number}": FULL | {"orders": number, "spend": None if number % 3 == 0 else number / 7}
        for number in range(700)
    }
    store.write(rows)
    ids = [f"m_{number}" for number in range(750)]  # the last fifty are unknown
    vectors = features.read(ids[::-1], NOW)
    assert vectors.status[:50] == ("unknown",) * 50
    assert vectors.columns["orders"][50:] == list(range(700))[::-1]
    assert_as_feast(store, features, ids[::-1])


def test_an_older_write_has_the_same_effect_as_in_feast(store: FilledStore, features: OnlineFeatures) -> None:
    """In SQLite an older row replaces a newer one, in Redis it does not."""
    store.write({"late": FULL | {"orders": 2}}, NOW - timedelta(days=1))
    store.write({"late": FULL | {"orders": 1}}, NOW - timedelta(days=9))
    assert_as_feast(store, features, ["late"])
    vectors = features.read(["late"], NOW)
    expected = (1, 9) if store.online["type"] == "sqlite" else (2, 1)
    assert (vectors.columns["orders"][0], (NOW - vectors.timestamps[0]).days) == expected  # type: ignore[operator]


def test_a_feature_that_was_never_written_is_missing_and_counted(
    store: FilledStore, features: OnlineFeatures
) -> None:
    lacking = {name: value for name, value in FULL.items() if name not in ("segment", "orders")}
    store.write({"lacking": lacking, "whole": FULL})
    assert_as_feast(store, features, ["lacking", "whole", "nobody"])
    vectors = features.read(["lacking", "whole", "nobody"], NOW)
    assert vectors.missing == {"orders": 1, "segment": 1}
    assert vectors.columns["orders"] == [0, 3, None]  # the default, as in training
    assert vectors.columns["segment"] == [None, "gold", None]


def test_rows_of_a_feature_no_longer_in_the_spec_change_nothing(
    store: FilledStore, features: OnlineFeatures
) -> None:
    if store.online["type"] == "sqlite":
        with closing(sqlite3.connect(store.database)) as connection, connection:
            connection.executemany(
                "INSERT INTO tiny_user_features (entity_key, feature_name, value, event_ts) "
                "VALUES (?, ?, ?, 1)",
                [(serialize_entity_key(key_of(who)), "forgotten", b" \x01") for who in ("retired", "only")],
            )
    store.write({"retired": FULL})
    vectors = features.read(["retired", "only"], NOW)
    assert (vectors.status, vectors.columns["spend"]) == (("ok", "unknown"), [12.5, None])


def test_the_time_of_a_vector_is_that_of_its_oldest_value(
    store: FilledStore, features: OnlineFeatures
) -> None:
    if store.online["type"] == "redis":
        pytest.skip("Redis stores one time for the whole vector")
    store.write({"mixed": FULL}, NOW - timedelta(days=30))
    store.write({"mixed": {"orders": 9}}, NOW - timedelta(days=2))
    vectors = features.read(["mixed"], NOW)
    assert (vectors.columns["orders"][0], vectors.timestamps[0]) == (9, NOW - timedelta(days=30))


@pytest.mark.parametrize(
    "broken", [b"\xff\xff", b"\x12\x7fabc", b")123", b"\x12\x02\xff\xfe", b" \xff", b"\x98\x01\x00"]
)
def test_damaged_bytes_affect_one_customer(
    store: FilledStore, features: OnlineFeatures, broken: bytes
) -> None:
    store.write({"broken": FULL, "before": FULL, "after": FULL})
    overwrite(store, "broken", "segment", broken)
    vectors = features.read(["before", "broken", "after"], NOW)
    assert vectors.status == ("ok", "refused", "ok")
    assert vectors.reasons[1] is not None
    assert vectors.reasons[1].startswith("the store holds unreadable features: segment")
    assert vectors.columns["segment"] == ["gold", None, "gold"]


@pytest.mark.parametrize(
    ("name", "value"), [("orders", "1"), ("orders", 1.5), ("spend", "1"), ("segment", 1), ("town", 2.5)]
)
def test_a_value_of_another_type_than_declared_is_refused(
    store: FilledStore, features: OnlineFeatures, name: str, value: Any
) -> None:
    field = {str: "string_val", int: "int64_val", float: "double_val"}[type(value)]
    store.write({"typed": FULL | {name: Value(**{field: value})}, "fine": FULL})
    vectors = features.read(["typed", "fine"], NOW)
    assert vectors.status == ("refused", "ok")


def overwrite(store: FilledStore, user_id: str, feature: str, content: bytes) -> None:
    key = serialize_entity_key(key_of(user_id))
    if store.online["type"] == "sqlite":
        with closing(sqlite3.connect(store.database)) as connection, connection:
            connection.execute(
                "UPDATE tiny_user_features SET value = ? WHERE entity_key = ? AND feature_name = ?",
                (content, key, feature),
            )
        return
    from redis import Redis

    host, _, port = str(store.online["connection_string"]).partition(":")
    with Redis(host=host, port=int(port)) as client:
        client.hset(key + b"tiny", _mmh3(f"{SPEC.view}:{feature}"), content)


@given(st.text())
def test_entity_keys_equal_those_of_feast(user_id: str) -> None:
    try:
        expected = serialize_entity_key(key_of(user_id))
    except (UnicodeEncodeError, ValueError):
        return  # a lone surrogate, which is refused with the request
    assert wire.key_of(wire.key_prefix("user_id"), user_id) == expected


@settings(max_examples=500)
@given(st.binary(max_size=24))
def test_any_bytes_are_read_as_by_protobuf(content: bytes) -> None:
    try:
        ours = wire.value(content)
    except wire.Corrupt:
        return
    value = Value.FromString(content)
    kind = value.WhichOneof("val")
    assert bits(ours) == bits(None if kind is None else getattr(value, kind))


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)))
def test_timestamps_equal_those_of_protobuf(moment: datetime) -> None:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    assert abs(wire.timestamp(stamp.SerializeToString()) - moment.replace(tzinfo=UTC)) <= timedelta(
        microseconds=0 if 1900 < moment.year < 2100 else 64
    )


def test_a_store_with_another_layout_is_read_by_feast(tmp_path: Path) -> None:
    store = filled_store(tmp_path, {"type": "sqlite", "path": "online.db"})
    store.write({"a": FULL, "b": FULL | {"spend": None}})
    with closing(sqlite3.connect(store.database)) as connection, connection:
        connection.execute("ALTER TABLE tiny_user_features RENAME COLUMN event_ts TO taken_at")
    assert open_features(tmp_path, bundle_of()).reader.name == "feast"
    with closing(sqlite3.connect(store.database)) as connection, connection:
        connection.execute("ALTER TABLE tiny_user_features RENAME COLUMN taken_at TO event_ts")
    other = filled_store(
        tmp_path / "other", {"type": "sqlite", "path": str(store.database), "vector_enabled": True}
    )
    features = open_features(other.folder, bundle_of(), dict(os.environ, CHURN_STORE_TIMEOUT_MS="20000"))
    assert features.reader.name == "feast"
    vectors = features.read(["a", "nobody", "b"], NOW)
    assert vectors.status == ("ok", "unknown", "ok")
    assert vectors.columns["spend_a_month"] == [25.0, None, None]
    assert vectors.timestamps[0] == NOW - timedelta(days=1)


def test_the_registry_s_tags_equal_those_that_feast_reads(store: FilledStore) -> None:
    config = read_store_config(store.folder, {})
    assert service_tags(config, SPEC.service) == store.feast.get_feature_service(SPEC.service).tags

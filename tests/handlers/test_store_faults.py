"""Reads from a store that is slow, locked, stopped or started again, with real files and real servers."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from handlers.identity import PROBE_ID
from handlers.store.breaker import Rule
from handlers.store.feast_reader import FeastReader
from handlers.store.opening import open_features
from handlers.store.reader import FeatureStoreUnavailable, OnlineFeatures
from handlers.store.stored import Stored
from support.servers.online_stores import (
    NOW,
    SPEC,
    FilledStore,
    bundle_of,
    filled_store,
)
from support.servers.redis_servers import RedisServer, redis_server
from support.stalls import Stalls

TIMEOUT_MS = 250
SLACK_S = 0.35
"""Tolerance for a busy machine, in addition to its measured stalls."""
FULL = {"orders": 3, "spend": 12.5, "tenure": 0.25, "segment": "gold", "visits": 0, "town": "Oslo"}
REFUSING = SPEC.model_copy(update={"when_down": "refuse"})


@pytest.fixture
def sqlite_store(tmp_path: Path) -> FilledStore:
    store = filled_store(tmp_path, {"type": "sqlite", "path": "online.db"})
    store.write({"a": FULL, "b": FULL | {"orders": 4}})
    return store


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
def redis_store(tmp_path: Path, server: RedisServer) -> FilledStore:
    store = filled_store(tmp_path / "feast", server.online)
    store.write({"a": FULL, "b": FULL | {"orders": 4}})
    return store


OPENED: list[OnlineFeatures] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def opened(store: FilledStore, timeout_ms: int = TIMEOUT_MS) -> OnlineFeatures:
    environment = {"CHURN_STORE_TIMEOUT_MS": str(timeout_ms)}
    OPENED.append(open_features(store.folder, bundle_of(store.spec), environment))
    return OPENED[-1]


def refused_within(features: OnlineFeatures, seconds: float, *ids: str) -> FeatureStoreUnavailable:
    with Stalls() as stalls:
        began = time.monotonic()
        with pytest.raises(FeatureStoreUnavailable) as caught:
            features.read(ids, NOW)
        took = time.monotonic() - began
        assert took < seconds + SLACK_S + stalls.since(began)
    assert caught.value.retry_after_s > 0
    return caught.value


def wait_until_read(features: OnlineFeatures, *ids: str, seconds: float = 10.0) -> float:
    """Seconds until `ids` are read from the store again."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        try:
            if set(features.read(ids, NOW).status) == {"ok"}:
                return time.monotonic() - began
        except FeatureStoreUnavailable:
            pass
        time.sleep(0.02)
    raise AssertionError("the store was not read again")


@contextmanager
def locked_by_another_process(database: Path) -> Iterator[None]:
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    try:
        yield
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def test_a_read_of_a_locked_sqlite_file_ends_at_the_timeout(sqlite_store: FilledStore) -> None:
    features = opened(sqlite_store)
    with locked_by_another_process(sqlite_store.database):
        refused_within(features, 2 * TIMEOUT_MS / 1000, "a")
        assert opened(sqlite_store).reader.name == "sqlite"  # opening does not fail while the file is locked
    wait_until_read(features, "a", "b")


def test_a_deleted_sqlite_file_is_detected_and_a_new_one_is_read(sqlite_store: FilledStore) -> None:
    features = opened(sqlite_store)
    assert features.read(["a"], NOW).status == ("ok",)
    content = sqlite_store.database.read_bytes()
    sqlite_store.database.unlink()
    assert features.read(["a"], NOW).status == ("degraded",)
    refused_within(features, 0, "b")
    assert not sqlite_store.database.exists()  # a read does not create an empty file
    sqlite_store.database.write_bytes(content)
    wait_until_read(features, "a", "b")


def test_a_file_replaced_by_another_is_read_from_then_on(sqlite_store: FilledStore, tmp_path: Path) -> None:
    features = opened(sqlite_store)
    assert features.read(["a"], NOW).columns["orders"] == [3]
    other = filled_store(tmp_path / "other", {"type": "sqlite", "path": "online.db"})
    other.write({"a": FULL | {"orders": 8}})
    other.database.replace(sqlite_store.database)
    assert features.read(["a"], NOW).columns["orders"] == [8]


def test_a_file_that_is_not_a_database_is_an_unavailable_store(sqlite_store: FilledStore) -> None:
    features = opened(sqlite_store)
    size = sqlite_store.database.stat().st_size
    sqlite_store.database.unlink()
    sqlite_store.database.write_bytes(b"\x00nothing of the kind" * (size // 16))
    assert str(refused_within(features, 0, "a")) == "DatabaseError"


def test_a_long_statement_is_interrupted(sqlite_store: FilledStore) -> None:
    sqlite_store.write({f"m{number}": FULL for number in range(3000)})
    began = time.monotonic()
    with pytest.raises(FeatureStoreUnavailable):
        opened(sqlite_store).reader.read([f"m{number}" for number in range(3000)], began + 0.002)
    assert time.monotonic() - began < 0.002 + SLACK_S
    wait_until_read(opened(sqlite_store, timeout_ms=20_000), *(f"m{number}" for number in range(3000)))


def test_reads_of_a_stopped_redis_are_refused_fast_until_it_works_again(
    redis_store: FilledStore, server: RedisServer
) -> None:
    features = opened(redis_store)
    assert features.read(["a"], NOW).status == ("ok",)
    server.stop()
    for _ in range(6):
        refused_within(features, 0.05, "b")
    assert features.stats()["breaker_opened"] == 1
    assert features.stats()["refused_fast"] >= 3
    server.start()
    redis_store.write({"a": FULL, "b": FULL})
    assert wait_until_read(features, "a", "b") < 2.0 + SLACK_S
    assert features.stats()["breaker_open"] == 0


def test_a_restart_between_two_reads_fails_no_read(redis_store: FilledStore, server: RedisServer) -> None:
    features = opened(redis_store, timeout_ms=2000)
    assert features.read(["a"], NOW).status == ("ok",)
    server.stop()
    server.start()
    redis_store.write({"a": FULL})
    assert features.read(["a"], NOW).status == ("ok",)
    assert features.stats()["failures"] == 0


@contextmanager
def hanging(server: RedisServer) -> Iterator[int]:
    """Its process id, while it does not respond."""
    assert server.process is not None
    pid = server.process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_redis_that_hangs_for_a_moment_refuses_nobody(
    redis_store: FilledStore, server: RedisServer
) -> None:
    features = opened(redis_store, timeout_ms=1000)
    assert features.read(["a"], NOW).status == ("ok",)
    with hanging(server) as pid:
        again = threading.Timer(1.3, os.kill, (pid, signal.SIGCONT))
        again.start()
        assert features.read(["b"], NOW).status == ("ok",)
        again.join()
    assert (features.stats()["repeated"], features.stats()["failures"]) == (1, 0)


def test_a_redis_that_hangs_delays_one_read_by_two_timeouts_and_no_other_by_more_than_one(
    redis_store: FilledStore, server: RedisServer
) -> None:
    features = opened(redis_store)
    assert features.read(["a"], NOW).status == ("ok",)
    with hanging(server):
        refused_within(features, 2 * TIMEOUT_MS / 1000, "b")
        hung = time.monotonic()
        while time.monotonic() - hung < 5:
            with Stalls() as stalls:
                began = time.monotonic()
                known = features.read(["a"], NOW)
                took = time.monotonic() - began
                assert took < TIMEOUT_MS / 1000 + SLACK_S + stalls.since(began)
            refused_within(features, TIMEOUT_MS / 1000, "b")
            assert known.status == ("degraded",)
            assert known.reasons == ("the feature store cannot be read now: last known values",)
            assert known.columns["orders"] == [3]
        # nearly all reads were refused by the breaker without a wait
        assert features.stats()["failures"] < 15 < features.stats()["refused_fast"]
        assert features.stats()["repeated"] == 1
    assert wait_until_read(features, "a", "b") < 2.0 + TIMEOUT_MS / 1000 + SLACK_S


def test_redis_with_a_password_and_a_database_number(tmp_path: Path, server: RedisServer) -> None:
    from redis import Redis

    with Redis(host="127.0.0.1", port=server.port) as client:
        client.config_set("requirepass", "s3cret")
    online = {"type": "redis", "connection_string": f"127.0.0.1:{server.port},db=3,password=s3cret"}
    store = filled_store(tmp_path / "feast", online)
    store.write({"a": FULL})
    features = opened(store)
    assert features.reader.name == "redis"
    assert features.read(["a"], NOW).columns["orders"] == [3]
    wrong = filled_store(
        tmp_path / "wrong", online | {"connection_string": f"127.0.0.1:{server.port},db=3,password=guess"}
    )
    error = refused_within(opened(wrong), 0.1, "a")
    assert str(error) == "WRONGPASS"


def test_a_key_that_is_not_a_hash_affects_one_customer(redis_store: FilledStore, server: RedisServer) -> None:
    from redis import Redis

    from support.servers.online_stores import key_of

    # isort: split
    from feast.infra.key_encoding_utils import serialize_entity_key

    with Redis(host="127.0.0.1", port=server.port) as client:
        client.set(serialize_entity_key(key_of("c")) + b"tiny", "a string")
    vectors = opened(redis_store).read(["a", "c", "b"], NOW)
    assert vectors.status == ("ok", "refused", "ok")


class Slow:
    """A store that needs time for each customer, and stops at the deadline like every reader."""

    def __init__(self, features: OnlineFeatures, seconds_each: float) -> None:
        self.reader, self.seconds_each = features.reader, seconds_each
        self.name, self.sizes = self.reader.name, list[int]()
        features.guarded.reader = self

    def read(self, ids: Sequence[str], deadline: float) -> Stored:
        self.sizes.append(len(ids))
        took = len(ids) * self.seconds_each
        time.sleep(max(min(took, deadline - time.monotonic()), 0))
        if time.monotonic() >= deadline:
            raise FeatureStoreUnavailable("timeout")
        return self.reader.read(ids, deadline)

    def close(self) -> None:
        self.reader.close()


def test_a_long_list_has_the_time_of_several_reads_and_opens_no_breaker(sqlite_store: FilledStore) -> None:
    features = opened(sqlite_store)
    Slow(features, TIMEOUT_MS / 1000 / 500)  # 500 customers would take the whole timeout
    for _ in range(3):
        vectors = features.read(["a", *(f"m{number}" for number in range(1000)), "b"], NOW)
        assert (vectors.status[0], vectors.status[-1], vectors.lost) == ("ok", "ok", frozenset())
    assert features.stats()["failures"] == 0


def test_a_long_list_that_is_too_slow_affects_only_its_own_customers(
    sqlite_store: FilledStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.store.reader.BATCH_TIMEOUT_S", 0.3)
    features = opened(sqlite_store)
    slow = Slow(features, TIMEOUT_MS / 1000 / 300)
    for _ in range(5):
        vectors = features.read(["a", "b", *(f"m{number}" for number in range(1000))], NOW)
        assert vectors.status[:2] == ("ok", "ok")
        assert vectors.status[-1] == "refused"
        assert {0, 1} & vectors.lost == set() != vectors.lost
    assert features.stats()["failures"] == 5
    assert features.stats()["breaker_opened"] == 0
    # a timeout of a single customer does open the breaker
    slow.seconds_each = 1.0
    for _ in range(3):
        assert features.read(["a"], NOW).status == ("degraded",)
    assert features.stats()["breaker_open"] == 1


def test_the_id_of_health_checks_is_unknown_while_the_store_is_down(sqlite_store: FilledStore) -> None:
    """A health check, which requests PROBE_ID, therefore passes: this worker can answer."""
    features = opened(sqlite_store)
    assert features.healthy
    assert features.read(["a", PROBE_ID], NOW).status == ("ok", "unknown")
    sqlite_store.database.unlink()
    for _ in range(5):
        assert features.read([PROBE_ID], NOW).status == ("unknown",)
    assert features.read(["a", PROBE_ID, "b"], NOW).status == ("degraded", "unknown", "refused")
    assert features.health() == {
        "healthy": False,
        "reader": "sqlite",
        "breaker": "open",
        "failure": "FileNotFoundError",
    }
    assert features.stats()["healthy"] == 0


def test_policies_apply_while_the_store_is_down(tmp_path: Path) -> None:
    strict = SPEC.model_copy(
        update={"features": tuple(f.model_copy(update={"on_missing": "refuse"}) for f in SPEC.features)}
    )
    store = filled_store(tmp_path, {"type": "sqlite", "path": "online.db"}, strict)
    store.write({"whole": FULL, "lacking": FULL | {"tenure": None}})
    features = opened(store)
    assert features.read(["whole", "lacking"], NOW).status == ("ok", "refused")
    store.database.unlink()
    vectors = features.read(["whole", "lacking", "never"], NOW)
    assert vectors.status == ("degraded", "refused", "refused")
    assert vectors.lost == {2}
    assert "tenure is missing" in str(vectors.reasons[1])


def test_last_known_vectors_are_used_within_the_ttl_only(sqlite_store: FilledStore) -> None:
    sqlite_store.write({"old": FULL}, NOW - timedelta(days=34))
    features = opened(sqlite_store)
    features.read(["a", "old"], NOW)
    sqlite_store.database.unlink()
    later = NOW + timedelta(days=2)
    vectors = features.read(["a", "old", "b"], later)
    assert vectors.status == ("degraded", "refused", "refused")
    assert vectors.reasons[1] == "the feature store cannot be read now"
    assert vectors.columns["spend"] == [12.5, None, None]
    assert vectors.columns["spend_a_month"] == [25.0, None, None]
    assert vectors.retry_after_s is not None
    assert features.stats()["recalled"] == 1
    with pytest.raises(FeatureStoreUnavailable):
        features.read(["a"], NOW + timedelta(days=60))


def test_a_spec_that_forbids_it_gets_no_last_known_values(tmp_path: Path) -> None:
    store = filled_store(tmp_path, {"type": "sqlite", "path": "online.db"}, REFUSING)
    store.write({"a": FULL})
    features = opened(store)
    assert features.read(["a"], NOW).status == ("ok",)
    store.database.unlink()
    refused_within(features, 0, "a")
    assert features.stats()["last_known_customers"] == 0


def test_the_cache_is_bounded_and_retains_the_latest_customers(sqlite_store: FilledStore) -> None:
    from handlers.store.last_known import LastKnown

    cache = LastKnown(["orders"], customers=2)
    for user_id in ("a", "b", "a", "c"):
        cache.add([user_id], Stored({"orders": [1]}, [NOW]))
    assert len(cache) == 2
    assert cache.recall(["a", "b", "c"]).timestamps == [NOW, None, NOW]
    cache.add(["a"], Stored({"orders": [None]}, [None]))  # the customer is not in the store any more
    assert cache.recall(["a"]).timestamps == [None]


class Hanging:
    """Feast's interface to a store whose answer is controlled by the test."""

    def __init__(self) -> None:
        self.released = False

    def get_online_features(self, **_: object) -> None:
        while not self.released:
            time.sleep(0.01)
        raise sqlite3.OperationalError("no such table: secret_table")


def test_a_read_by_feast_itself_ends_at_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.store.feast_reader.FIRST_READ_S", 0.05)
    store = Hanging()
    reader = FeastReader(store, None, ["orders"], "user_id")  # type: ignore[arg-type]
    features = OnlineFeatures(reader, bundle_of(), 0.1, Rule(failures_in_a_row=99))
    for _ in range(3):
        refused_within(features, 0.1, "a")
    store.released = True
    time.sleep(0.1)
    assert str(refused_within(features, 0.1, "a")) == "OperationalError"

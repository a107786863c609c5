"""Direct reads from Redis with TLS, users, sentinels and clusters, as Feast has written it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from handlers.store.opening import open_features
from handlers.store.reader import FeatureStoreUnavailable, OnlineFeatures
from handlers.store.redis_address import address_of
from handlers.store.redis_servers import SLOTS, slot_of
from handlers.store.stored import UnknownLayout
from support.servers.online_stores import NOW, FilledStore, bundle_of, filled_store, key_of
from support.servers.redis_servers import (
    RedisCluster,
    cluster,
    free_ports,
    plain_redis,
    sentinels,
    tls_redis,
)
from support.servers.tls_files import tls_files
from support.waits import within

# isort: split
from feast.infra.key_encoding_utils import serialize_entity_key
from redis.crc import key_slot

FULL = {"orders": 3, "spend": 12.5, "tenure": 0.25, "segment": "gold", "visits": 0, "town": "Oslo"}
MANY = {f"m{number}": FULL | {"orders": number} for number in range(300)}


@contextmanager
def opened(store: FilledStore, timeout_ms: int = 5_000) -> Iterator[OnlineFeatures]:
    environment = {"CHURN_STORE_TIMEOUT_MS": str(timeout_ms)}
    features = open_features(store.folder, bundle_of(store.spec), environment)
    assert features.reader.name == "redis", "read by Feast, not directly"
    try:
        yield features
    finally:
        features.close()


def written(folder: Path, connection: str, **more: Any) -> FilledStore:
    """A store that Feast itself has written, with the same address."""
    store = filled_store(folder, {"type": "redis", "connection_string": connection, **more})
    store.write(MANY)
    return store


def read(features: OnlineFeatures) -> None:
    vectors = features.read([*MANY, "nobody"], NOW)
    assert vectors.columns["orders"][:300] == list(range(300))
    assert (set(vectors.status[:300]), vectors.status[300]) == ({"ok"}, "unknown")


def failure(features: OnlineFeatures) -> str:
    with pytest.raises(FeatureStoreUnavailable) as caught:
        features.read(["m1"], NOW)
    return str(caught.value)


def test_tls_with_a_client_s_certificate(tmp_path: Path) -> None:
    files, others = tls_files(tmp_path / "tls"), tls_files(tmp_path / "others")
    with tls_redis(tmp_path / "redis", files) as port:

        def connection(host: str, ca: Path, **more: Path | str) -> str:
            parts = {"ssl_ca_certs": ca, "ssl_certfile": files.certificate, "ssl_keyfile": files.key} | more
            return f"{host}:{port},ssl=true," + ",".join(f"{name}={value}" for name, value in parts.items())

        store = written(tmp_path / "feast", connection("127.0.0.1", files.ca))
        with opened(store) as features:
            read(features)
        online: dict[str, Any] = {"type": "redis"}
        for wrong, reason in (
            (connection("127.0.0.1", others.ca), "SSLCertVerificationError"),
            (f"127.0.0.1:{port}", "ConnectionResetError"),
            (f"127.0.0.1:{port},ssl=true,ssl_ca_certs={files.ca}", "SSL"),
        ):
            other = filled_store(tmp_path / reason, online | {"connection_string": wrong})
            with opened(other) as features:
                assert failure(features).startswith(reason)


def test_a_certificate_of_another_host_is_refused_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    files = tls_files(tmp_path / "tls")
    # a name of 127.0.0.1 that is not in the certificate
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: resolve("127.0.0.1", *rest, **more)
    )
    with tls_redis(tmp_path / "redis", files) as port:
        parts = f"ssl=true,ssl_ca_certs={files.ca},ssl_certfile={files.certificate},ssl_keyfile={files.key}"
        store = filled_store(
            tmp_path / "a", {"type": "redis", "connection_string": f"cache.example:{port},{parts}"}
        )
        with opened(store) as features:
            assert failure(features) == "SSLCertVerificationError"
        anyone = f"cache.example:{port},{parts},ssl_check_hostname=false"
        with opened(written(tmp_path / "b", anyone)) as features:
            read(features)


def test_a_user_who_may_only_read(tmp_path: Path) -> None:
    [port] = free_ports(1)
    with plain_redis(tmp_path / "redis", port):
        store = written(tmp_path / "feast", f"127.0.0.1:{port},db=2")
        with Redis(port=port) as client:
            client.execute_command(*["ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "+hmget", "+select"])
            client.execute_command(*["ACL", "SETUSER", "default", "off"])
        config = store.folder / "feature_store.yaml"

        def as_user(user: str, password: str) -> None:
            address = f"127.0.0.1:{port},db=2,username={user},password={password}"
            online = {"type": "redis", "connection_string": address}
            before = config.read_text()
            head, tail = before.index("online_store:"), before.index("offline_store:")
            config.write_text(f"{before[:head]}online_store: {online!r}\n{before[tail:]}")

        as_user("reader", "s3cret")
        with opened(store) as features:
            read(features)
        as_user("reader", "guess")
        with opened(store) as features:
            assert failure(features) == "WRONGPASS"


@pytest.mark.slow
def test_the_master_of_the_sentinels_is_read_also_after_a_failover(tmp_path: Path) -> None:
    with sentinels(tmp_path, "s3cret", "watch") as servers:
        connection = f"127.0.0.1:{servers.sentinel},password=s3cret,sentinel_password=watch"
        dead = free_ports(1)[0]
        named = {"redis_type": "redis_sentinel", "sentinel_master": "churn"}
        store = written(tmp_path / "feast", f"127.0.0.1:{dead},{connection}", **named)
        with opened(store, 1_000) as features:
            read(features)
            with Redis(port=servers.ports[1], password="s3cret") as replica:
                within(30, lambda: replica.dbsize() == len(MANY))
            servers.master.kill()
            servers.master.wait()
            began = time.monotonic()
            # meanwhile last known values of customers are used
            while set((vectors := features.read(["m1"], NOW)).status) != {"ok"}:
                assert vectors.status == ("degraded",)
                assert time.monotonic() - began < 30
                time.sleep(0.05)
            read(features)
            assert features.stats()["breaker_open"] == 0
        unknown = filled_store(
            tmp_path / "unknown",
            {"type": "redis", "connection_string": connection, **named, "sentinel_master": "other"},
        )
        with opened(unknown) as features:
            assert failure(features) == "the sentinel has no master other"


@pytest.fixture(scope="module")
def masters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def in_cluster(folder: Path, masters: RedisCluster) -> FilledStore:
    return written(folder, f"127.0.0.1:{masters.ports[0]}", redis_type="redis_cluster")


def test_each_customer_of_a_cluster_is_read_from_their_node(tmp_path: Path, masters: RedisCluster) -> None:
    store = in_cluster(tmp_path, masters)
    assert all(masters.client(number).dbsize() > 50 for number in range(3))
    with opened(store) as features:
        read(features)
        assert features.stats()["failures"] == 0


def test_a_moved_slot_is_read_during_and_after_the_move(tmp_path: Path, masters: RedisCluster) -> None:
    store = in_cluster(tmp_path, masters)
    keys = {user: serialize_entity_key(key_of(user)) + b"tiny" for user in MANY}
    with opened(store) as features:
        read(features)
        slot = slot_of(keys["m1"])
        here = slot * 3 // SLOTS
        there = (here + 1) % 3
        masters.client(there).execute_command("CLUSTER SETSLOT", slot, "IMPORTING", masters.identity(here))
        masters.client(here).execute_command("CLUSTER SETSLOT", slot, "MIGRATING", masters.identity(there))
        port = masters.ports[there]
        masters.client(here).execute_command("MIGRATE", "127.0.0.1", port, keys["m1"], 0, 5000)
        read(features)  # ASK
        for number in range(3):
            masters.client(number).execute_command("CLUSTER SETSLOT", slot, "NODE", masters.identity(there))
        read(features)  # MOVED
        read(features)
        assert features.stats()["failures"] == 0


def test_the_slot_of_a_key_equals_that_of_redis() -> None:
    for key in (b"", b"a", b"{a}b", b"x{a}b{c}", b"{}a", b"a{", b"a}{b}", bytes(range(256))):
        assert slot_of(key) == key_slot(key)


@pytest.mark.parametrize(
    "online",
    [
        {"client": "glide"},
        {"redis_type": "other"},
        {"connection_string": "a:1,b:2"},
        {"connection_string": "a:1,unix_socket_path=/x"},
        {"connection_string": "a"},
        {"something": 1},
    ],
)
def test_unsupported_settings_are_read_by_feast(online: dict[str, Any]) -> None:
    with pytest.raises(UnknownLayout):
        address_of({"type": "redis", "connection_string": "a:1"} | online)

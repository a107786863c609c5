"""The stores of `make production-up`: killed while they are written, stopped exactly, closed to strangers."""

import json
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from redis import Redis
from redis.exceptions import RedisError

from deploy.loopback import broker, object_store, postgresql, redis_server
from deploy.loopback.place import HOST
from deploy.loopback.processes import Processes
from deploy.loopback.stores import states
from support.servers.loopback import Loopback, loopback
from support.waits import within
from training.registry.mlflow_client import client_of

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: pip install '.[loopback]'")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ENOUGH = 50
"""Writes that are acknowledged before a store is killed."""


@pytest.fixture(scope="module")
def stores() -> Iterator[Loopback]:
    with loopback() as started:
        yield started


Write = Callable[[str], Any]
"""Writes one name; it returns when the store has acknowledged it, and raises otherwise."""


def to_postgresql(stores: Loopback) -> Write:
    uri = postgresql.uri(stores.place, "shop", "")
    with psycopg.connect(uri) as connection:
        connection.execute("CREATE TABLE written (name text PRIMARY KEY)")
    kept = psycopg.connect(uri, autocommit=True)
    return lambda name: kept.execute("INSERT INTO written VALUES (%s)", (name,))


def in_postgresql(stores: Loopback) -> set[str]:
    return {name for (name,) in stores.rows("shop", "SELECT name FROM written")}


def to_redis(stores: Loopback) -> Write:
    client = redis_server.client(stores.place)
    return lambda name: client.hset("written", name, "1")


def in_redis(stores: Loopback) -> set[str]:
    with redis_server.client(stores.place) as client:
        return {name.decode() for name in client.hkeys("written")}


def to_s3(stores: Loopback) -> Write:
    store = object_store.file_system(stores.place)
    return lambda name: store.pipe_file(f"churn-data/written/{name}", name.encode())


def in_s3(stores: Loopback) -> set[str]:
    store = object_store.file_system(stores.place)
    found = store.find("churn-data/written")
    return {path.rpartition("/")[2] for path in found if store.cat_file(path).decode() in path}


def to_kafka(stores: Loopback) -> Write:
    producer = Producer({**broker.client_settings(stores.place), "message.timeout.ms": 3000, "acks": "all"})

    def write(name: str) -> None:
        errors: list[Any] = []
        producer.produce(broker.PURCHASES, name.encode(), on_delivery=lambda error, _: errors.append(error))
        producer.flush(5)
        if errors != [None]:
            raise OSError(str(errors))

    return write


def in_kafka(stores: Loopback) -> set[str]:
    return {value.decode() for value in stores.messages(broker.PURCHASES)}


def to_mlflow(stores: Loopback) -> Write:
    client = client_of(stores.variables["MLFLOW_TRACKING_URI"])
    run = client.create_run("0", run_name="written").info.run_id
    return lambda name: client.set_tag(run, name, "1")


def in_mlflow(stores: Loopback) -> set[str]:
    client = client_of(stores.variables["MLFLOW_TRACKING_URI"])
    (run,) = client.search_runs(["0"], "run_name = 'written'")
    return set(run.data.tags)


@pytest.mark.parametrize(
    ("name", "open_for_writing", "read"),
    [
        ("postgresql", to_postgresql, in_postgresql),
        ("redis", to_redis, in_redis),
        ("s3", to_s3, in_s3),
        ("kafka", to_kafka, in_kafka),
        ("mlflow", to_mlflow, in_mlflow),
    ],
)
def test_what_a_store_acknowledged_before_it_was_killed_is_there_after_its_start(
    stores: Loopback,
    name: str,
    open_for_writing: Callable[[Loopback], Write],
    read: Callable[[Loopback], set[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    write, acknowledged = open_for_writing(stores), []

    def until_it_fails() -> None:
        for _ in range(100_000):
            one = uuid.uuid4().hex
            try:
                write(one)
            except Exception:  # each client has errors of its own for a server that is gone
                return
            acknowledged.append(one)

    writer = threading.Thread(target=until_it_fails)
    writer.start()
    within(60, lambda: len(acknowledged) >= ENOUGH or not writer.is_alive())
    stores.kill(name)
    writer.join(120)
    assert not writer.is_alive() and len(acknowledged) >= ENOUGH
    stores.up(name)
    assert set(acknowledged) <= read(stores)


def test_a_client_without_certificate_or_password_is_refused(stores: Loopback) -> None:
    place = stores.place
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(postgresql.uri(place, "shop", "").replace("verify-full", "disable"))
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgresql.uri(place, "shop", "").replace(place.passwords["postgresql"], "x"))
    with pytest.raises(RedisError):
        Redis(host=HOST, port=place.ports["redis"]).ping()
    with pytest.raises(RedisError, match=r"NOAUTH|Authentication"):
        Redis(host=HOST, port=place.ports["redis"], ssl=True, ssl_ca_certs=str(place.certificate)).ping()
    with redis_server.client(place) as client, pytest.raises(RedisError, match="no permissions"):
        client.flushall()
    for file in (place.environment, place.key, place.folder / "stores.json"):
        assert file.stat().st_mode & 0o077 == 0


def test_a_process_that_has_the_id_of_a_server_is_not_stopped(stores: Loopback) -> None:
    processes = Processes(stores.place)
    redis = processes.running("redis")
    assert redis is not None and set(states(stores.place).values()) == {"ready"}
    record = stores.place.folder / "processes.json"
    content = json.loads(record.read_text())
    other = subprocess.Popen(["sleep", "60"])
    try:
        record.write_text(json.dumps({**content, "redis": {**content["redis"], "pid": other.pid}}))
        assert processes.running("redis") is None and not processes.stop("redis", 5)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
        record.write_text(json.dumps(content))
    stores.kill("redis")
    assert states(stores.place)["redis"] == "stopped" and not redis.alive
    stores.up()
    assert set(states(stores.place).values()) == {"ready"}

"""The consumer with librdkafka's own broker: offsets after the push, dead letters, a store that is away."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry

from stream.config import StreamConfig
from stream.consumer import StreamConsumer
from stream.errors import StoreAway
from stream.measures import Measures
from stream.state import State
from stream.topic import ORIGIN, REASON, Topic
from support.stream_workspace import END, Shop, message, shop, vectors
from support.waits import within

kafka = pytest.importorskip("confluent_kafka")
NOW = END + timedelta(days=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return shop(tmp_path_factory.mktemp("shop"), customers=5)


@pytest.fixture
def state(made: Shop, tmp_path: Path) -> Iterator[State]:
    state = made.state(f"sqlite:///{tmp_path}/state.db")
    yield state
    state.close()


@pytest.fixture
def producer() -> Iterator[Any]:
    producer = kafka.Producer({"test.mock.num.brokers": 1})
    yield producer
    producer.flush(1)


class Running:
    """A consumer in a thread, until the end of the block."""

    def __init__(
        self, brokers: str, made: Shop, state: State, push: Callable[[pa.Table], None] | None = None
    ):
        self.registry = CollectorRegistry()
        self.config = StreamConfig(brokers=brokers, longest_retry_s=0.3)
        self._over = threading.Event()
        work = made.work(state, lambda: NOW, push)
        self._topic = Topic(self.config, {})
        consumer = StreamConsumer(self._topic, work, Measures(self.registry), 100, 0.05, 0.3)
        self._thread = threading.Thread(target=consumer.run, args=(self._over.is_set,), daemon=True)

    def __enter__(self) -> "Running":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._topic.close()

    def count(self, outcome: str) -> float:
        return self.registry.get_sample_value("churn_stream_messages_total", {"outcome": outcome}) or 0.0


def address(producer: Any) -> str:
    [broker] = producer.list_topics(timeout=10).brokers.values()
    return f"{broker.host}:{broker.port}"


def committed(brokers: str) -> int:
    """The sum of the group's committed offsets."""
    client = kafka.Consumer({"bootstrap.servers": brokers, "group.id": "churn-stream"})
    try:
        partitions = client.list_topics("purchases", timeout=10).topics["purchases"].partitions
        places = [kafka.TopicPartition("purchases", number) for number in partitions]
        return sum(max(place.offset, 0) for place in client.committed(places, timeout=10))
    finally:
        client.close()


def send(producer: Any, *values: bytes) -> None:
    for value in values:
        producer.produce("purchases", value, key=b"k")
    assert producer.flush(10) == 0


def test_purchases_come_online_and_dead_letters_have_a_reason(
    made: Shop, state: State, producer: Any
) -> None:
    brokers = address(producer)
    send(
        producer,
        message((1, END.isoformat(), 5.0, 1.0, "a")),
        b"{",
        message((1, END.isoformat(), 5.0, 1.0, "a")),
    )
    user = made.reader().read([message((1, END.isoformat(), 5.0, 1.0, "a"))], 10**16, 0).purchases[0].user_id
    before = sum(row[0] == 1 for row in made.history)
    with Running(brokers, made, state) as running:
        within(30, lambda: running.count("new") == 1 and running.count("repeated") == 1)
        assert running.count("refused") == 1
        assert running.registry.get_sample_value("churn_stream_lag_seconds_count") == 3
    assert vectors(made, [user])["total_purchases"].to_pylist() == [before + 1]
    letters = kafka.Consumer(
        {"bootstrap.servers": brokers, "group.id": "letters", "auto.offset.reset": "earliest"}
    )
    letters.subscribe(["purchases.dead"])
    [letter] = within(30, lambda: [one for one in letters.consume(1, 1.0) if one.error() is None])
    letters.close()
    headers = dict(letter.headers())
    assert letter.value() == b"{"
    assert b"not JSON" in headers[REASON]
    assert headers[ORIGIN].startswith(b"purchases/")
    assert committed(brokers) == 3


def test_offsets_are_committed_only_when_the_store_has_the_vectors(
    made: Shop, state: State, producer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    brokers, pushed, away = address(producer), [], threading.Event()
    away.set()

    def push(table: pa.Table) -> None:
        if away.is_set():
            raise StoreAway("features.online_store: away")
        pushed.append(table)

    send(producer, *(message((one, END.isoformat(), 5.0, 1.0, f"b{one}")) for one in range(5)))
    with Running(brokers, made, state, push) as running:
        failures = "churn_stream_failures_total"
        within(30, lambda: (running.registry.get_sample_value(failures, {"step": "store"}) or 0) >= 3)
        assert committed(brokers) == 0
        send(producer, message((1, END.isoformat(), 6.0, 1.0, "later")))
        away.clear()
        within(30, lambda: running.count("new") + running.count("repeated") == 6)
    assert committed(brokers) == 6
    assert caplog.text.count("features.online_store: away") == 1  # one line for an outage
    assert json.dumps(5.0) not in caplog.text


def test_a_restart_continues_after_the_committed_offsets(made: Shop, state: State, producer: Any) -> None:
    brokers = address(producer)
    send(producer, message((1, END.isoformat(), 5.0, 1.0, "c1")))
    with Running(brokers, made, state) as running:
        within(30, lambda: running.count("new") == 1)
    send(producer, message((1, END.isoformat(), 5.0, 1.0, "c2")))
    with Running(brokers, made, state) as running:
        within(30, lambda: running.count("new") == 1)
        assert running.count("repeated") == 0

"""kill -9 of the consumer after each step, of the broker, and of the producer: on real Kafka and Redis.

Every purchase that the broker acknowledged and still has is in the state once, and every vector equals the
batch build.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from support.servers.kafka_broker import Broker, kafka_broker
from support.servers.redis_servers import redis_server
from support.stream_workspace import Row, Shop, differences, message, purchases, shop, vectors
from support.waits import within

pytestmark = pytest.mark.slow
CUSTOMERS = 30
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with kafka_broker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Shop]:
    with redis_server(tmp_path / "redis") as server:
        made = shop(tmp_path / "shop", CUSTOMERS, server.online)
        made.state().close()
        yield made


@dataclass(frozen=True)
class Drill:
    made: Shop
    broker: Broker
    topic: str

    def overlay(self) -> Path:
        content = {
            "workspace": str(self.made.files.root),
            "data": self.made.data.model_dump(mode="json"),
            "features": {"online_store": dict(self.made.spec.online_store)},
            "stream": {
                "brokers": self.broker.address, "topic": self.topic, "dead_letters": f"{self.topic}.dead",
                "group": self.topic, "state": f"sqlite:///{self.made.files.root}/stream.db", "batch": 40,
            },
        }  # fmt: skip
        file = self.made.files.root / f"{self.topic}.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        return file

    def start(self, step: str, times: int) -> psutil.Popen:
        command = [
            sys.executable,
            "-m",
            "support.drills.stream_consumer",
            str(self.overlay()),
            step,
            str(times),
        ]
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        with (self.made.files.root / "consumer.log").open("ab") as log:
            return psutil.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT)

    def held(self) -> int:
        state = self.made.state(loaded=False)
        try:
            users = [user for page in state.customers(1000) for user in page]
            return state.touch(users, 0, lambda held: held.rows.num_rows)[0]
        finally:
            state.close()

    def send(self, rows: Sequence[Row], *others: bytes) -> None:
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.broker.address, "enable.idempotence": True})
        for value in [*(message(row) for row in rows), *others]:
            producer.produce(self.topic, value, b"k")
        assert producer.flush(60) == 0

    def finish(self, count: int) -> None:
        """Run a consumer until the state has so many purchases and the offsets are at the end."""
        process = self.start("push", 10**9)
        try:
            within(90, lambda: _slowly(self.held() >= count), self.log)
            within(60, lambda: _slowly(self.committed() == self.end()), self.log)
        finally:
            process.terminate()
            process.wait(60)

    def log(self) -> str:
        return (self.made.files.root / "consumer.log").read_text()[-3000:]

    def committed(self) -> int:
        from confluent_kafka import Consumer, TopicPartition

        client = Consumer({"bootstrap.servers": self.broker.address, "group.id": self.topic})
        try:
            return int(client.committed([TopicPartition(self.topic, 0)], timeout=20)[0].offset)
        finally:
            client.close()

    def end(self) -> int:
        from confluent_kafka import Consumer, TopicPartition

        client = Consumer({"bootstrap.servers": self.broker.address, "group.id": "other"})
        try:
            return int(client.get_watermark_offsets(TopicPartition(self.topic, 0), timeout=20)[1])
        finally:
            client.close()

    def differ(self, rows: Sequence[Row], folder: Path) -> list[str]:
        state = self.made.state(loaded=False)
        users = [user for page in state.customers(1000) for user in page]
        state.close()
        folder.mkdir()
        return differences(self.made, rows, vectors(self.made, users), folder)


def _slowly(found: bool) -> bool:
    if not found:
        time.sleep(1)
    return found


def some(count: int, prefix: str, seed: int = 1) -> list[Row]:
    now = datetime.now(UTC)
    return purchases(np.random.default_rng(seed), CUSTOMERS, count, now - timedelta(days=5), now, prefix)


@pytest.mark.parametrize("step", ["read", "add", "push", "bury", "commit"])
def test_a_consumer_killed_after_a_step_loses_and_doubles_nothing(
    made: Shop, broker: Broker, step: str, tmp_path: Path
) -> None:
    drill = Drill(made, broker, f"killed-{step}")
    broker.create(drill.topic)
    rows = some(200, step)
    drill.send(rows[:100], b"{broken")
    drill.send(rows[100:], b"{broken too")
    process = drill.start(step, 2)
    assert process.wait(120) == -9, drill.log()
    drill.finish(len(made.history) + 200)
    assert drill.held() == len(made.history) + 200
    assert drill.differ(rows, tmp_path / "offline") == []


def test_a_killed_broker_and_producer_lose_nothing_that_was_acknowledged(
    made: Shop, broker: Broker, tmp_path: Path
) -> None:
    """The producer is killed too, and its successor sends everything of which it got no acknowledgement."""
    drill = Drill(made, broker, "killed-broker")
    broker.create(drill.topic)
    rows = some(600, "b", 4)
    process = drill.start("push", 10**9)
    try:
        drill.send(rows[:200])
        within(90, lambda: _slowly(drill.held() > len(made.history)), drill.log)
        sender = threading.Thread(target=drill.send, args=(rows[200:400],))
        broker.kill()
        sender.start()  # it waits for the broker
        time.sleep(2)
        broker.start()
        sender.join(90)
        drill.send(rows[300:])  # the successor repeats 100 of them
        within(90, lambda: _slowly(drill.held() == len(made.history) + 600), drill.log)
    finally:
        process.terminate()
        process.wait(60)
    assert drill.held() == len(made.history) + 600
    assert drill.differ(rows, tmp_path / "offline") == []


def test_a_broker_that_lost_its_tail_is_read_from_where_it_is_now(
    made: Shop, broker: Broker, tmp_path: Path
) -> None:
    """The broker's disk is set back to an earlier copy; new purchases get the offsets of the lost ones."""
    drill = Drill(made, broker, "tail")
    broker.create(drill.topic)
    rows = some(300, "t", 6)
    drill.send(rows[:100])
    broker.stop()
    shutil.copytree(broker.data, tmp_path / "copy")
    broker.start()
    process = drill.start("push", 10**9)
    try:
        drill.send(rows[100:200])
        within(90, lambda: _slowly(drill.held() == len(made.history) + 200), drill.log)
        within(30, lambda: _slowly(drill.committed() == 200), drill.log)
        broker.kill()
        shutil.rmtree(broker.data)
        shutil.copytree(tmp_path / "copy", broker.data)
        broker.start()
        drill.send(rows[200:])  # at the offsets from 100 on
        within(120, lambda: _slowly(drill.held() == len(made.history) + 300), drill.log)
    finally:
        process.terminate()
        process.wait(60)
    # what the broker lost had counted already; what it has counts too
    assert drill.differ(rows, tmp_path / "offline") == []


def test_a_store_that_is_away_is_waited_for(broker: Broker, tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        made = shop(tmp_path / "shop", CUSTOMERS, server.online)
        made.state().close()
        drill = Drill(made, broker, "away")
        broker.create(drill.topic)
        rows = some(100, "a", 7)
        process = drill.start("push", 10**9)
        try:
            drill.send(rows[:50])
            within(90, lambda: _slowly(drill.committed() == 50), drill.log)
            server.stop()
            drill.send(rows[50:])
            within(30, lambda: _slowly("trying again" in drill.log()), drill.log)
            assert drill.committed() == 50
            server.start()  # empty, as after a loss of its memory
            within(60, lambda: _slowly(drill.committed() == 100), drill.log)
        finally:
            process.terminate()
            process.wait(60)
        refresh = [sys.executable, "-m", "churn", "stream", "refresh", "--config", str(drill.overlay())]
        subprocess.run(refresh, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        assert drill.differ(rows, tmp_path / "offline") == []
        assert "u_" not in drill.log()

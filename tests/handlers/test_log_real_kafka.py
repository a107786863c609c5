"""The prediction log on a real Kafka broker: over TLS, over SASL, and through the death of the broker."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handlers.records.kafka import KafkaTopic
from handlers.records.log import PredictionLog
from handlers.records.settings import kafka_security, open_log
from support.prediction_records import ORIGIN, records
from support.servers.kafka_broker import PASSWORD, USER, Broker, kafka_broker
from support.waits import within

LOG = "CHURN_PREDICTION_LOG_KAFKA"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with kafka_broker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


def ids(broker: Broker, topic: str) -> list[str]:
    """The request ids of all records in the topic, which has one partition."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "test"})
    _, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=20)
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[Any] = []
    deadline = time.monotonic() + 20
    while len(found) < high and time.monotonic() < deadline:
        found += [m for m in consumer.consume(500, 0.5) if m.error() is None]
    consumer.close()
    return [json.loads(message.value())["request_id"] for message in found]


def secured(broker: Broker, way: str) -> dict[str, str]:
    files = {f"{LOG}_CA": str(broker.tls.ca), f"{LOG}_SECURITY": way}
    if way == "ssl":
        files |= {f"{LOG}_CERTIFICATE": str(broker.tls.certificate), f"{LOG}_KEY": str(broker.tls.key)}
        return files
    return files | {f"{LOG}_USER": USER, f"{LOG}_PASSWORD": PASSWORD}


@pytest.mark.parametrize("way", ["ssl", "sasl_ssl"])
def test_records_arrive_over_tls_and_sasl(broker: Broker, way: str) -> None:
    broker.create(f"over-{way}")
    port = {"ssl": broker.ssl, "sasl_ssl": broker.sasl_ssl}[way]
    log = open_log({LOG: f"127.0.0.1:{port}/over-{way}", **secured(broker, way)}, ORIGIN)
    assert log is not None
    log.append(records(1, 2, 3))
    log.close()
    assert log.counts() == {"handed": 3, "written": 3, "dropped": 0, "waiting": 0}
    assert sorted(ids(broker, f"over-{way}")) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("way", "wrong"),
    [("ssl", {f"{LOG}_CERTIFICATE": "", f"{LOG}_KEY": ""}), ("sasl_ssl", {f"{LOG}_PASSWORD": "another"})],
)
def test_a_client_that_is_refused_counts_its_records_and_says_so(
    broker: Broker, way: str, wrong: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    port = {"ssl": broker.ssl, "sasl_ssl": broker.sasl_ssl}[way]
    security = kafka_security(secured(broker, way) | wrong)
    topic = KafkaTopic(f"127.0.0.1:{port}", "refused", security)
    log = PredictionLog(lambda: topic, ORIGIN)
    log.append(records(1, 2))
    within(10, lambda: "kafka: " in caplog.text)
    log.close()
    assert log.counts() == {"handed": 2, "written": 0, "dropped": 2, "waiting": 0}
    assert PASSWORD not in caplog.text
    assert "another" not in caplog.text


def test_a_killed_broker_loses_no_record_and_doubles_none(broker: Broker) -> None:
    broker.create("killed")
    topic = KafkaTopic(broker.address, "killed")
    log = PredictionLog(lambda: topic, ORIGIN, take_every_s=0.01)
    for number in range(2_000):
        log.append(records(number))
        if number == 700:
            within(20, lambda: topic.delivered > 0)
            broker.kill()
        if number == 1_300:
            broker.start()
        if number % 100 == 0:
            time.sleep(0.02)  # so that records are sent before, during and after
    within(60, lambda: topic.delivered == 2_000, lambda: log.counts())
    log.close()
    assert log.counts() == {"handed": 2_000, "written": 2_000, "dropped": 0, "waiting": 0}
    assert sorted(map(int, ids(broker, "killed"))) == list(range(2_000))


def test_a_broker_that_lost_acknowledged_records_does_not_end_the_log(broker: Broker) -> None:
    """The topic is made anew under the producer, as after a restore from a backup that is too old."""
    from confluent_kafka.admin import AdminClient

    broker.create("shortened")
    topic = KafkaTopic(broker.address, "shortened")
    log = PredictionLog(lambda: topic, ORIGIN, take_every_s=0.01)
    log.append(records(1, 2))
    within(20, lambda: topic.delivered == 2)
    client = AdminClient({"bootstrap.servers": broker.address})
    client.delete_topics(["shortened"])["shortened"].result(20)
    within(20, lambda: "shortened" not in client.list_topics(timeout=5).topics)
    broker.create("shortened")
    log.append(records(3, 4))
    within(60, lambda: log.counts()["waiting"] == 0 and topic.delivered + topic.lost == 4)
    log.append(records(5))
    within(60, lambda: topic.delivered + topic.lost == 5)
    counts = log.counts()
    log.close()
    assert counts["written"] + counts["dropped"] == 5
    assert "5" in ids(broker, "shortened")


def test_ids_reads_what_is_there(broker: Broker, tmp_path: Path) -> None:
    broker.create("empty")
    assert ids(broker, "empty") == []

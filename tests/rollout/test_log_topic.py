"""A rollout judges by the records in a topic as by those in a folder. A real Kafka has them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.errors import ServingError
from handlers.records.kafka import KafkaTopic
from handlers.records.log import PredictionLog
from handlers.records.record import Origin, Records
from handlers.records.segments import ParquetSegments
from rollout.observers.log_files import LogFiles
from rollout.observers.log_topic import LogTopic
from rollout.observers.observer import Opened
from rollout.observers.prediction_log import PredictionLogReader
from support.prediction_records import TYPES, records
from support.servers.kafka_broker import Broker, kafka_broker
from support.waits import within

VARIANTS = ("stable", "canary")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with kafka_broker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


def origin(variant: str) -> Origin:
    return Origin("v1", "d" * 64, variant, 0.5, TYPES)


def write(broker: Broker, topic: str, variant: str, *batches: Records) -> None:
    sink = KafkaTopic(broker.address, topic)
    log = PredictionLog(lambda: sink, origin(variant), take_every_s=0.01)
    for batch in batches:
        log.append(batch)
    within(30, lambda: sink.delivered == sum(len(batch.rows) for batch in batches))
    log.close()


def test_a_topic_and_a_folder_give_the_same_evidence(broker: Broker, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    for variant in VARIANTS:
        made = [records(1, 2, 3, time_=now), records(4, 5, time_=now + timedelta(seconds=5))]
        write(broker, "evidence", variant, *made)
        direct = PredictionLog(lambda: ParquetSegments(tmp_path, 1.0), origin(variant))
        for batch in made:
            direct.append(batch)
        direct.close()
    windows = (
        Opened(0, True, now, now + timedelta(seconds=5)),
        Opened(50, False, now + timedelta(seconds=5), None),
    )
    found = []
    for source in (LogTopic(broker.address, "evidence", {}), LogFiles(tmp_path)):
        reader = PredictionLogReader(source, ["segment"])
        reader.read(now)
        reader.read(now)
        found.append([reader.logged(window) for window in windows])
    for of_topic, of_folder in zip(*found, strict=True):
        assert str(of_topic) == str(of_folder)
        assert of_topic.stable.customers == of_topic.canary.customers > 0
    assert len(found[0][0].pairs) == 3


def test_earlier_records_are_not_read_and_later_ones_once(broker: Broker) -> None:
    """By the broker's time of each record: a log of months is not read at the start of a rollout."""
    ahead = timedelta(days=-100)  # workers of a test whose features end in the past
    source = LogTopic(broker.address, "later", {}, ahead)
    begun = datetime.now(UTC) + timedelta(minutes=5)
    write(broker, "later", "stable", records(1, time_=begun + ahead))
    assert list(source.new_rows(begun + ahead)) == [], "written more than a minute before"
    write(broker, "later", "stable", records(2, time_=begun + ahead))
    [table] = source.new_rows(begun + ahead)
    assert table["request_id"].to_pylist() == ["2"]
    assert list(source.new_rows(begun + ahead)) == []


def test_a_broker_that_is_away_is_an_error_and_nothing_is_read_twice(broker: Broker) -> None:
    now = datetime.now(UTC)
    source = LogTopic(broker.address, "away", {})
    write(broker, "away", "stable", records(1, time_=now))
    assert sum(len(table) for table in source.new_rows(now)) == 1
    broker.kill()
    with pytest.raises(ServingError, match=r"prediction log 127.0.0.1:\d+/away: .*does not answer"):
        list(source.new_rows(now))
    broker.start()
    write(broker, "away", "stable", records(2, time_=now))
    [table] = source.new_rows(now)
    assert table["request_id"].to_pylist() == ["2"]


def test_a_topic_that_nothing_was_written_to_has_no_rows(broker: Broker) -> None:
    assert list(LogTopic(broker.address, "new", {}).new_rows(datetime.now(UTC))) == []

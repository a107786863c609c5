"""The monitor reads the prediction log from a topic as it reads Parquet; librdkafka's own broker has it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from core.errors import MonitoringError
from handlers.records.kafka import KafkaTopic
from handlers.records.log import PredictionLog
from handlers.records.segments import ParquetSegments
from monitoring import topic as reading
from monitoring.predictions import Predictions
from monitoring.topic import copy_topic
from support.prediction_records import ORIGIN, TYPES, records
from support.served_bundle import NOW
from support.waits import within

kafka = pytest.importorskip("confluent_kafka")
TOPIC = "predictions"


@contextmanager
def running() -> Iterator[str]:
    producer = kafka.Producer({"test.mock.num.brokers": 1})
    [address] = [f"{b.host}:{b.port}" for b in producer.list_topics(timeout=10).brokers.values()]
    yield address
    producer.flush(1)


@pytest.fixture
def broker() -> Iterator[str]:
    with running() as address:
        yield address


def written(broker: str, *numbers: int, at: datetime = NOW) -> None:
    topic = KafkaTopic(broker, TOPIC)
    log = PredictionLog(lambda: topic, ORIGIN, take_every_s=0.01)
    log.append(records(*numbers, time_=at))
    within(20, lambda: topic.delivered == len(numbers))
    log.close()


def copied(broker: str, folder: Path) -> int:
    return copy_topic(broker, TOPIC, {}, TYPES, folder)


def request_ids(folder: Path) -> list[str]:
    files = sorted(folder.glob("date=*/*.parquet"))
    return sorted(
        one for file in files for one in pq.read_table(file, partitioning=None)["request_id"].to_pylist()
    )


def test_a_topic_gives_the_same_rows_as_parquet_segments(broker: str, tmp_path: Path) -> None:
    direct = PredictionLog(lambda: ParquetSegments(tmp_path / "parquet", 1.0), ORIGIN)
    direct.append(records(1, 2, 3))
    direct.close()
    written(broker, 1, 2, 3)
    assert copied(broker, tmp_path / "topic") == 3
    rows = []
    for folder in ("parquet", "topic"):
        window = Predictions.of(tmp_path / folder, NOW - timedelta(hours=1), NOW + timedelta(hours=1))
        assert window is not None
        rows.append(window.query(f"SELECT * FROM ({window.rows}) ORDER BY request_id"))
    assert list(rows[0].dtypes) == list(rows[1].dtypes)
    assert rows[0].astype(str).equals(rows[1][rows[0].columns].astype(str))


def test_each_call_copies_only_what_is_new(broker: str, tmp_path: Path) -> None:
    written(broker, 1, 2)
    assert copied(broker, tmp_path) == 2
    assert copied(broker, tmp_path) == 0
    written(broker, 3)
    assert copied(broker, tmp_path) == 1
    assert request_ids(tmp_path) == ["1", "2", "3"]


def test_an_interrupted_copy_is_repeated_and_doubles_nothing(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(broker, 1, 2)
    copied(broker, tmp_path)
    written(broker, 3, 4)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as changed:
        changed.setattr(reading, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            copied(broker, tmp_path)
    assert len(request_ids(tmp_path)) > 2  # a segment is there, its position is not
    written(broker, 5)
    copied(broker, tmp_path)
    assert request_ids(tmp_path) == ["1", "2", "3", "4", "5"]


def test_a_record_that_is_in_the_topic_twice_is_copied_once(broker: str, tmp_path: Path) -> None:
    """As a producer writes some after it has given others up."""
    written(broker, 1, 2, 2)
    assert copied(broker, tmp_path) == 2
    written(broker, 2, 3)
    assert copied(broker, tmp_path) == 1
    assert request_ids(tmp_path) == ["1", "2", "3"]


@pytest.mark.parametrize(
    "kept",
    [(1, 2, 3), (1, 2, 7), (1, 2, 7, 8, 9, 10, 11), (7, 8), (7, 8, 9, 10, 11, 12, 13), ()],
    ids=["same", "end", "end, longer", "new", "new, longer", "empty"],
)
def test_a_topic_that_lost_its_end_or_was_made_anew_is_copied_again_without_what_is_there(
    broker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: tuple[int, ...]
) -> None:
    written(broker, 1, 2, 3)
    copied(broker, tmp_path)
    with running() as restored:
        written(restored, *kept)
        assert copied(restored, tmp_path) == len({*kept} - {1, 2, 3})
        assert request_ids(tmp_path) == sorted(map(str, {1, 2, 3, *kept}))
        assert copied(restored, tmp_path) == 0
        written(restored, 20)
        assert copied(restored, tmp_path) == 1
    assert ("copied again without these" in caplog.text) == (kept != (1, 2, 3))


def test_rows_are_in_the_folder_of_their_day(broker: str, tmp_path: Path) -> None:
    late = datetime(2020, 1, 2, 3, tzinfo=UTC)
    written(broker, 1, at=late)
    written(broker, 2, at=late + timedelta(days=40))
    copied(broker, tmp_path)
    assert [path.name for path in sorted(tmp_path.glob("date=*"))] == ["date=2020-01-02", "date=2020-02-11"]


def test_messages_that_are_no_records_are_left_out(
    broker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    producer: Any = kafka.Producer({"bootstrap.servers": broker})
    for value in (b"{", b"[]", json.dumps({"user_id": 1}).encode(), None):
        producer.produce(TOPIC, value=value)
    producer.flush(10)
    written(broker, 1)
    assert copied(broker, tmp_path) == 1
    assert request_ids(tmp_path) == ["1"]
    assert "no records of predictions" in caplog.text


def test_an_absent_broker_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "IDLE_S", 0.5)
    with pytest.raises(
        MonitoringError, match=r"serving.prediction_log_kafka 127.0.0.1:1/predictions: .*start"
    ):
        copy_topic("127.0.0.1:1", TOPIC, {}, TYPES, tmp_path)

"""Copies the prediction log from a Kafka topic into Parquet segments, which every reader of the log reads.

Each call reads what arrived since the last one. The position is a file that is replaced after the segments of
a chunk are complete; segments that an interrupted call left behind it are removed. So every record of the
topic is in the segments once, also one that a producer wrote twice. Old segments stay when the topic's
retention removes their records.

Where the last record that was copied is not in its place any more, the brokers have lost the end of the topic
or it was made anew. It is then copied again from its start, without the records that the segments have.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from core.errors import MonitoringError
from core.workspace import write_atomically
from handlers.records.messages import record_of, table_of

CHUNK = 50_000
"""Records of a partition that are in memory at a time."""
IDLE_S = 20.0
"""How long a broker may take for the next record that it has announced."""
POSITION = ".topic.json"
IDENTITY = ("request_id", "user_id", "time")
"""Of a record. A request may be about several customers; one that names a customer twice counts once."""

log = logging.getLogger("churn.monitor")


def copy_topic(
    brokers: str, topic: str, security: Mapping[str, str], types: Mapping[str, str], folder: Path
) -> int:
    """Append the records that the topic has now to the log in `folder`; return their number.

    `security`: librdkafka's settings (handlers/records/settings.py); `types`: input of the network -> its
    declared type. Messages that are no records are counted and left out. Raises MonitoringError when the
    topic cannot be read; what was copied before stays, and the next call continues there.
    """
    from confluent_kafka import Consumer, KafkaException

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".topic.lock"):
        position = _Position(folder)
        client = Consumer({
            "bootstrap.servers": brokers, "group.id": "churn-monitor", "enable.auto.commit": False,
            "auto.offset.reset": "error", "log_level": 0,
            "fetch.wait.max.ms": 20,  # a request at the end of a partition delays the one for the next
            **security,
        })  # fmt: skip
        try:
            return sum(_copy(client, topic, part, types, position) for part in _partitions(client, topic))
        except KafkaException as error:
            raise MonitoringError(
                f"serving.prediction_log_kafka {brokers}/{topic}: {error.args[0].name()}; start the brokers,"
                " or correct the address and the variables CHURN_PREDICTION_LOG_KAFKA_*"
            ) from None
        finally:
            client.close()


class _Position:
    """Where the next call continues: for each partition of a topic a generation, which is raised when the
    partition is copied again from its start, the next offset, and the digest of the record before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / POSITION
        self._known: dict[str, list[Any]] = json.loads(self._file.read_text()) if self._file.exists() else {}

    def start(self, name: str, low: int, digest_at: Callable[[int], str | None]) -> tuple[int, int]:
        """(generation, offset) from which the partition `name`, which begins at `low`, is read. `digest_at`:
        of the record at an offset; None: there is none."""
        generation, offset, *digest = self._known.get(name, [0, low])
        # a position of an earlier release has no digest, and retention may have removed the record
        if digest and offset > low and digest_at(offset - 1) != digest[0]:
            log.warning(
                "%s: the topic has lost records that are copied; it is copied again without these", name
            )
            generation, offset = generation + 1, low
        for left in self.folder.glob(f"date=*/topic-{name}-{generation:04d}-*.parquet"):
            if int(left.stem.rsplit("-", 1)[1]) >= offset:
                left.unlink()
        return generation, max(offset, low)

    def move(self, name: str, generation: int, offset: int, digest: str) -> None:
        self._known[name] = [generation, offset, digest]
        write_atomically(self._file, json.dumps(self._known))

    def without_copied(self, name: str, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Each record once, and none that a segment has."""
        if not records:
            return []
        segments = [
            str(file)
            for day, _ in _by_day(records)
            for file in self.folder.glob(f"date={day}/topic-{name}-*.parquet")
        ]
        arrived = pa.table({key: [record[key] for record in records] for key in IDENTITY})
        arrived = arrived.append_column("row", pa.array(range(len(records))))
        keys = ", ".join(IDENTITY)
        known = f"ANTI JOIN read_parquet(?, hive_partitioning = false) USING ({keys})" if segments else ""
        with duckdb.connect() as connection:
            connection.register("arrived", arrived)
            found = connection.execute(
                f"SELECT min(row) FROM arrived {known} GROUP BY {keys} ORDER BY 1",
                [segments] if segments else [],
            ).fetchall()
        return [records[row] for (row,) in found]


def _partitions(client: Any, topic: str) -> list[Any]:
    """All partitions of the topic; none where it does not exist."""
    from confluent_kafka import KafkaError, KafkaException, TopicPartition

    found = client.list_topics(topic, timeout=IDLE_S).topics[topic]
    if found.error is not None:
        if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return []  # no worker has written a record yet
        raise KafkaException(found.error)
    return [TopicPartition(topic, number) for number in sorted(found.partitions)]


def _copy(client: Any, topic: str, partition: Any, types: Mapping[str, str], position: _Position) -> int:
    """Copy one partition up to the end that it has now; return the number of records."""
    from confluent_kafka import TopicPartition

    name = f"{topic}-{partition.partition}"
    low, high = client.get_watermark_offsets(partition, timeout=IDLE_S)

    def digest_at(offset: int) -> str | None:
        if offset >= high:
            return None
        client.assign([TopicPartition(topic, partition.partition, offset)])
        return _digest(next(_messages(client, 1)))

    generation, offset = position.start(name, low, digest_at)
    client.assign([TopicPartition(topic, partition.partition, offset)])
    copied = skipped = repeated = 0
    while offset < high:
        records: list[dict[str, Any]] = []
        first = offset
        for message in _messages(client, min(CHUNK, high - offset)):
            offset = message.offset() + 1
            if (record := record_of(message.value())) is None:
                skipped += 1
            else:
                records.append(record)
            if offset >= high:
                break
        read = len(records)
        records = position.without_copied(name, records)
        for day, rows in _by_day(records):
            _write(
                position.folder / f"date={day}" / f"topic-{name}-{generation:04d}-{first}.parquet",
                rows,
                types,
            )
        position.move(name, generation, offset, _digest(message))
        copied += len(records)
        repeated += read - len(records)
    if repeated:
        log.info("%s: %d records were copied already or are in the topic twice; left out", name, repeated)
    if skipped:
        log.warning("%s: %d messages are no records of predictions; left out", name, skipped)
    return copied


def _digest(message: Any) -> str:
    return hashlib.sha256(message.value() or b"").hexdigest()


def _messages(client: Any, count: int) -> Iterator[Any]:
    """So many messages. Raises KafkaException when none arrives in IDLE_S, and for an error of the broker."""
    from confluent_kafka import KafkaError, KafkaException

    while count > 0:
        batch = client.consume(min(count, 10_000), IDLE_S)
        if not batch:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        for message in batch:
            if message.error() is not None:
                raise KafkaException(message.error())
            yield message
        count -= len(batch)


def _by_day(records: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    days: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        days.setdefault(f"{record['time']:%Y-%m-%d}", []).append(record)
    return sorted(days.items())


def _write(file: Path, rows: Sequence[dict[str, Any]], types: Mapping[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    pq.write_table(table_of(rows, types), temporary, compression="zstd")
    temporary.replace(file)

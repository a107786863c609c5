"""The rows of a prediction log in a Kafka topic, each read once, as log_files.py reads those of a folder."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from core.errors import ServingError
from handlers.records.messages import record_of, table_of

ANSWER_WITHIN_S = 5.0
"""Of a broker. A look that takes longer would hold up the decisions of a rollout."""
MOST_MESSAGES = 10_000
"""In memory at a time."""
EARLIER = timedelta(minutes=1)
"""A broker's time of a record may be earlier than the worker's."""


class LogTopic:
    """`security`: librdkafka's settings (handlers/records/settings.py). `clock_offset`: by how much the
    workers' clock is ahead of the broker's."""

    def __init__(
        self,
        brokers: str,
        topic: str,
        security: Mapping[str, str],
        clock_offset: timedelta = timedelta(0),
    ) -> None:
        self._address, self._topic, self._offset = brokers, topic, clock_offset
        self._settings = {
            "bootstrap.servers": brokers, "group.id": "churn-rollout", "enable.auto.commit": False,
            "auto.offset.reset": "earliest", "enable.partition.eof": False, "log_level": 0, **security,
        }  # fmt: skip
        self._client: Any = None
        self._next: dict[int, int] = {}
        """Partition -> the offset of its next record."""

    def __str__(self) -> str:
        return f"{self._address}/{self._topic}"

    def new_rows(self, since: datetime) -> Iterator[pa.Table]:
        """Rows since the last call; by the first call those after `since`, on the workers' clock.

        Raises ServingError when the broker does not answer. The next call then continues where this ended.
        """
        from confluent_kafka import Consumer, KafkaException

        try:
            if self._client is None:
                self._client = Consumer(self._settings)
            for partition, end in self._ends(since).items():
                yield from self._read(partition, end)
        except KafkaException as error:
            self.close()
            raise ServingError(
                f"prediction log {self}: {error.args[0].name()}; the broker does not answer"
            ) from None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ends(self, since: datetime) -> dict[int, int]:
        """Partition -> the offset up to which it is read now. New partitions begin at `since`."""
        from confluent_kafka import TopicPartition

        found = self._client.list_topics(self._topic, timeout=ANSWER_WITHIN_S).topics[self._topic]
        ends = {}
        for partition in sorted(found.partitions):
            place = TopicPartition(self._topic, partition)
            low, high = self._client.get_watermark_offsets(place, timeout=ANSWER_WITHIN_S)
            if partition not in self._next:
                begin = since - self._offset - EARLIER
                asked = TopicPartition(self._topic, partition, int(begin.timestamp() * 1000))
                [first] = self._client.offsets_for_times([asked], timeout=ANSWER_WITHIN_S)
                self._next[partition] = first.offset if first.offset >= 0 else high
            # a broker may have removed old records, or have lost the newest
            self._next[partition] = min(max(self._next[partition], low), high)
            ends[partition] = high
        return ends

    def _read(self, partition: int, end: int) -> Iterator[pa.Table]:
        from confluent_kafka import KafkaError, KafkaException, TopicPartition

        if self._next[partition] >= end:
            return
        self._client.assign([TopicPartition(self._topic, partition, self._next[partition])])
        while self._next[partition] < end:
            # no more than are there: for others this call would wait
            wanted = min(MOST_MESSAGES, end - self._next[partition])
            messages = self._client.consume(wanted, ANSWER_WITHIN_S)
            if not messages:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            for message in messages:
                if message.error() is not None:
                    raise KafkaException(message.error())
            self._next[partition] = messages[-1].offset() + 1
            records = [record for message in messages if (record := record_of(message.value())) is not None]
            if records:
                yield table_of(records, {})

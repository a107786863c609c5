"""The Kafka side: messages of the partitions that this member of the group has, offsets, dead letters."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from stream.config import StreamConfig
from stream.errors import StoreAway

log = logging.getLogger("churn.stream")

DEAD_LETTER_S = 15.0
"""How long a broker may take to acknowledge dead letters."""
REASON, ORIGIN = "churn-reason", "churn-origin"
"""Headers of a dead letter: why, and `topic/partition/offset`, which is equal when it is written again."""


@dataclass(frozen=True, slots=True)
class Message:
    partition: int
    offset: int
    value: bytes | None
    key: bytes | None
    sent_s: float
    """When the producer sent it, seconds since 1970."""
    epoch: int
    """The leader's epoch, by which the client finds that a broker has lost its tail."""


class Topic:
    """A member of the consumer group, from `__init__` until `close`. One thread uses it."""

    def __init__(self, config: StreamConfig, security: Mapping[str, str]) -> None:
        self._config, self._security = config, dict(security)
        self._is_held = False
        self._revoked: set[int] = set()
        self._failure = ""
        self._producer: Producer | None = None
        self._consumer = Consumer({
            "bootstrap.servers": config.brokers,
            "group.id": config.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",  # also where an offset is gone: repeated purchases count once
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 10_000,
            "max.poll.interval.ms": 300_000,
            "fetch.wait.max.ms": 50,
            "queued.max.messages.kbytes": 16_384,  # per partition; bounds the memory
            "log_level": 2,
            "error_cb": self._on_error,
            **self._security,
        })  # fmt: skip
        self._consumer.subscribe(
            [config.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    def read(self, most: int, seconds: float) -> list[Message]:
        """The next messages, at most so many, of partitions that this member has at the end of the call."""
        self._revoked.clear()
        found = [_message(one) for one in self._consumer.consume(most, seconds) if not self._is_error(one)]
        return [one for one in found if one.partition not in self._revoked]

    def hold(self) -> None:
        """Read no further messages until `release`, and stay a member of the group (`wait`)."""
        self._is_held = True
        self._consumer.pause(self._consumer.assignment())

    def wait(self, seconds: float, pending: Sequence[Message]) -> list[Message]:
        """Wait while held; `pending` without the messages of partitions that another member has got, and
        with those that arrived nevertheless."""
        self._revoked.clear()
        arrived = [_message(one) for one in self._consumer.consume(1, seconds) if not self._is_error(one)]
        return [one for one in (*pending, *arrived) if one.partition not in self._revoked]

    def release(self) -> None:
        self._is_held = False
        self._consumer.resume(self._consumer.assignment())

    def commit(self, messages: Sequence[Message]) -> None:
        """Commit the offsets after these messages. Raises StoreAway; the messages are then read again."""
        newest: dict[int, Message] = {}
        for one in messages:
            newest[one.partition] = one
        offsets = [
            TopicPartition(self._config.topic, one.partition, one.offset + 1, leader_epoch=one.epoch)
            for one in newest.values()
        ]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            raise StoreAway(f"offsets: {error.args[0].name()}") from None

    def bury(self, letters: Sequence[tuple[Message, str]]) -> None:
        """Write dead letters, each a message with the reason, and wait for the broker. Raises StoreAway."""
        failed: list[str] = []

        def report(error: KafkaError | None, _: object) -> None:
            if error is not None:
                failed.append(error.name())

        try:
            producer = self._producer or self._new_producer()
            for one, reason in letters:
                origin = f"{self._config.topic}/{one.partition}/{one.offset}"
                headers: list[tuple[str, str | bytes | None]] = [
                    (REASON, reason.encode()),
                    (ORIGIN, origin.encode()),
                ]
                producer.produce(
                    self._config.dead_letters, one.value, one.key, headers=headers, on_delivery=report
                )
            if producer.flush(DEAD_LETTER_S) or failed:
                raise StoreAway(f"dead letters: {failed[0] if failed else 'not acknowledged'}")
        except (KafkaException, BufferError) as error:
            raise StoreAway(f"dead letters: {type(error).__name__}") from None
        except StoreAway:
            if self._producer is not None:
                self._producer.purge()
            self._producer = None  # it may have ended for good
            raise

    def behind(self) -> int:
        """Messages of this member's partitions that are not read yet, as far as the client is informed."""
        count = 0
        for place in self._consumer.position(self._consumer.assignment()):
            _, high = self._consumer.get_watermark_offsets(place, cached=True)
            if high >= 0 and place.offset >= 0:
                count += max(high - place.offset, 0)
        return count

    def close(self) -> None:
        """Leave the group, so that the others get the partitions at once."""
        self._consumer.close()
        if self._producer is not None:
            self._producer.flush(DEAD_LETTER_S)

    def _new_producer(self) -> Producer:
        self._producer = Producer({
            "bootstrap.servers": self._config.brokers, "enable.idempotence": True, "log_level": 2,
            "message.timeout.ms": int(DEAD_LETTER_S * 900), "error_cb": self._on_error, **self._security,
        })  # fmt: skip
        return self._producer

    def _is_error(self, message: Any) -> bool:
        """Whether it is a report of the client. Raises KafkaException when the client has ended for good."""
        error = message.error()
        if error is None:
            return False
        if error.fatal():
            raise KafkaException(error)
        self._on_error(error)
        return True

    def _on_error(self, error: KafkaError) -> None:
        if error.name() != self._failure:  # one line for each kind in a row
            log.warning("kafka: %s; trying again", error.name())
        self._failure = error.name()

    def _on_assign(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        consumer.incremental_assign(list(partitions))
        if self._is_held:
            consumer.pause(list(partitions))
        self._failure = ""
        log.info("partitions assigned: %s", sorted(one.partition for one in partitions))

    def _on_revoke(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._revoked |= {one.partition for one in partitions}
        consumer.incremental_unassign(list(partitions))
        log.info("partitions revoked: %s", sorted(one.partition for one in partitions))


def _message(message: Any) -> Message:
    _, sent_ms = message.timestamp()
    epoch = message.leader_epoch()
    return Message(
        message.partition(), message.offset(), message.value(), message.key(), sent_ms / 1000,
        -1 if epoch is None else epoch,
    )  # fmt: skip

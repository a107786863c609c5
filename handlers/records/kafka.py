"""The prediction log as a Kafka topic: one JSON value for each record, with the masked customer as key.

Needs `confluent-kafka`, which is not imported before this sink is opened.
"""

import json
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("churn.prediction_log")

FLUSH_TIMEOUT_S = 3.0
RECONNECT_MS = 1_000
"""A broker that has come back is found within about this time, which is within FLUSH_TIMEOUT_S."""
GIVE_UP_MS = 300_000
"""A record that no broker accepts within this time is lost; the client's delivery report counts it. Records
after it may then be in the topic twice, since the client begins a new sequence; readers leave them out."""
BUFFER_KB = 65_536
"""Of records that wait for a broker. Where it is full, later records wait in the worker's bounded queue."""


class KafkaTopic:
    """A sink. A record that the client has accepted is lost only if its delivery report states an error.

    An idempotent producer ends for good when brokers lose records that they had acknowledged: each call of
    `poll` then raises an error. Such a producer is replaced, and the records in its buffer are counted as
    lost.
    """

    def __init__(self, brokers: str, topic: str, security: Mapping[str, str] | None = None) -> None:
        """`security`: librdkafka's settings for TLS and SASL, see `log_settings`."""
        self._brokers, self._topic, self._security = brokers, topic, dict(security or {})
        self._producer: Any = None
        self._lost = 0
        self._delivered = 0
        self._answering = True
        self._renewals = 0

    @property
    def lost(self) -> int:
        """Accepted records that no broker has."""
        return self._lost

    @property
    def delivered(self) -> int:
        """Records that a broker has acknowledged."""
        return self._delivered

    @property
    def renewals(self) -> int:
        """How often a producer that had ended was replaced."""
        return self._renewals

    def open(self, schema: "pa.Schema") -> None:
        self._producer = self._new_producer()

    def write(self, batch: "pa.RecordBatch") -> None:
        """Gives all records to the client, which retries by itself; waits while its buffer is full."""
        for record in batch.to_pylist():
            value = json.dumps(_finite(record), default=_iso, allow_nan=False).encode()
            self._produce(record["user_id"].encode(), value)
        self._poll(0)

    def tick(self) -> None:
        self._poll(0)

    def close(self) -> None:
        left = self._producer.flush(FLUSH_TIMEOUT_S)
        if left:
            log.error("kafka: no broker has acknowledged %d records before the end; they are lost", left)
        self._lost += left

    def abandon(self) -> None:
        """Discards the records that are not delivered yet; their delivery reports count them as lost."""
        from confluent_kafka import KafkaException

        if self._producer is None:
            return
        self._producer.purge()
        for _ in range(100):
            if not len(self._producer):
                break
            with suppress(KafkaException):  # the fatal error is already logged
                self._producer.poll(0.05)
        self._lost += len(self._producer)
        self._producer = None

    def _new_producer(self) -> Any:
        from confluent_kafka import Producer

        return Producer(
            {
                "bootstrap.servers": self._brokers,
                "enable.idempotence": True,  # a retry makes no second record
                "message.timeout.ms": GIVE_UP_MS,
                "queue.buffering.max.kbytes": BUFFER_KB,
                "reconnect.backoff.max.ms": RECONNECT_MS,
                "linger.ms": 50,
                "compression.type": "zstd",
                "log_level": 2,  # at a higher level two lines each second while no broker answers
                "error_cb": self._on_error,
                **self._security,
            }
        )

    def _produce(self, key: bytes, value: bytes) -> None:
        from confluent_kafka import KafkaError, KafkaException

        while True:
            try:
                self._producer.produce(self._topic, value=value, key=key, on_delivery=self._report)
            except BufferError:
                self._poll(0.1)
            except KafkaException as error:
                if _is_over(error):
                    self._renew(error)
                    continue
                if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    log.error("kafka: a record is refused: %s", error.args[0].name())
                self._lost += 1
                return
            else:
                return

    def _poll(self, seconds: float) -> None:
        from confluent_kafka import KafkaException

        try:
            self._producer.poll(seconds)
        except KafkaException as error:
            self._renew(error)

    def _renew(self, error: Exception) -> None:
        log.error("kafka: the producer has ended (%s); a new one replaces it", error.args[0].name())
        self.abandon()
        self._renewals += 1
        self._producer = self._new_producer()

    def _report(self, error: object, _: object) -> None:
        if error is None:
            self._delivered += 1
            self._answering = True
        else:
            self._lost += 1

    def _on_error(self, error: object) -> None:
        if self._answering:  # one message for each outage
            log.error("kafka: %s; trying again", error)
        self._answering = False


def _is_over(error: Exception) -> bool:
    """Whether the producer has ended for good."""
    from confluent_kafka import KafkaError

    found = error.args[0]
    return bool(found.fatal() or found.code() in (KafkaError._FATAL, KafkaError._STATE, KafkaError._FENCED))


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """The record with None for NaN and infinities, which JSON does not have."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }


def _iso(moment: datetime) -> str:
    return moment.isoformat()

"""The prediction log as a Kafka topic: one JSON value a record, keyed by the masked customer.

Needs `confluent-kafka` (the extra `kafka`), which is imported when this sink is opened and not before.
"""

import json
import logging
import math
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("churn.prediction_log")

FLUSH_TIMEOUT_S = 3.0
GIVE_UP_MS = 60_000
"""A record that no broker took for this long is lost, and counted when the client says so."""


class KafkaTopic:
    """A sink. What the client has accepted is lost only when its delivery report says so."""

    def __init__(self, brokers: str, topic: str) -> None:
        self._brokers, self._topic = brokers, topic
        self._producer: Any = None
        self._lost = 0
        self._delivered = 0
        self._answering = True

    @property
    def lost(self) -> int:
        return self._lost

    @property
    def delivered(self) -> int:
        return self._delivered

    def open(self, schema: "pa.Schema") -> None:
        from confluent_kafka import Producer

        self._producer = Producer(
            {
                "bootstrap.servers": self._brokers,
                "enable.idempotence": True,  # a retry is not a second record
                "message.timeout.ms": GIVE_UP_MS,
                "linger.ms": 50,
                "compression.type": "zstd",
                "log_level": 2,  # else two lines a second while no broker answers
                "error_cb": self._away,
            }
        )

    def write(self, batch: "pa.RecordBatch") -> None:
        """Hand all to the client, which retries by itself; waits while its buffer is full."""
        from confluent_kafka import KafkaException

        for record in batch.to_pylist():
            value = json.dumps(_finite(record), default=_iso, allow_nan=False).encode()
            while True:
                try:
                    self._producer.produce(
                        self._topic, value=value, key=record["user_id"].encode(), on_delivery=self._report
                    )
                except BufferError:
                    self._producer.poll(0.1)
                    continue
                except KafkaException:  # larger than the topic takes
                    self._lost += 1
                break
        self._producer.poll(0)

    def tick(self) -> None:
        self._producer.poll(0)

    def close(self) -> None:
        self._lost += self._producer.flush(FLUSH_TIMEOUT_S)

    def _report(self, error: object, _: object) -> None:
        if error is None:
            self._delivered += 1
            self._answering = True
        else:
            self._lost += 1

    def _away(self, error: object) -> None:
        if self._answering:  # once an outage
            log.error("kafka: %s; trying on", error)
        self._answering = False


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }


def _iso(moment: datetime) -> str:
    return moment.isoformat()

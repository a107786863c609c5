"""The messages of Kafka topics, with their partitions, keys, headers and times.

Positions of consumer groups are not saved, because offsets of a topic that is made again differ. The readers
of this project do not count a message twice: they identify it by its content.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.backup.vault import BackupError, Vault

MESSAGES = 5_000
"""Of an object."""
IDLE_S = 20.0
"""How long a broker may take for a message that it has announced."""
Client = Mapping[str, str]
"""librdkafka's settings: brokers, TLS and SASL."""


def save_topic(client: Client, topic: str, vault: Vault) -> dict[str, Any]:
    """All messages that are there now: for each partition its objects and number of messages."""
    from confluent_kafka import Consumer, KafkaException

    settings = {"group.id": "churn-backup", "enable.auto.commit": False, "auto.offset.reset": "error"}
    consumer = Consumer({**client, **settings})
    try:
        partitions = []
        for number in range(_partitions(consumer, topic)):
            objects, count = [], 0
            for messages in _chunks(consumer, topic, number):
                count += len(messages)
                objects.append(vault.put(json.dumps(messages, separators=(",", ":")).encode()))
            partitions.append({"objects": objects, "messages": count})
        return {"partitions": partitions}
    except KafkaException as error:
        raise _failure(topic, error) from None
    finally:
        consumer.close()


def load_topic(client: Client, topic: str, record: Mapping[str, Any], vault: Vault) -> int:
    """Make the topic if it is missing, and append the messages that it lacks; return how many were appended.

    A broker that lost its tail, or a restore that was interrupted, left the first messages of a partition. So
    the saved ones from that number on are appended, and a complete partition gets none.
    """
    from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

    try:
        admin = AdminClient(dict(client))
        if topic not in admin.list_topics(timeout=IDLE_S).topics:
            made = admin.create_topics([NewTopic(topic, len(record["partitions"]))])
            made[topic].result(IDLE_S)
        consumer = Consumer({**client, "group.id": "churn-backup", "enable.auto.commit": False})
        producer = Producer({**client, "enable.idempotence": True})
        failed: list[str] = []
        appended = 0

        def report(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(error.name())

        for number, saved in enumerate(record["partitions"]):
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=IDLE_S)
            for message in list(_messages(saved, vault))[high - low :]:
                _produce(producer, topic, number, message, report)
                appended += 1
        consumer.close()
        if producer.flush(IDLE_S) or failed:
            raise BackupError(f"topic {topic}: {(failed or ['timed out'])[0]}; run churn restore again")
        return appended
    except KafkaException as error:
        raise _failure(topic, error) from None


def _partitions(consumer: Any, topic: str) -> int:
    """The number of partitions, 0 for a topic that does not exist."""
    found = consumer.list_topics(topic, timeout=IDLE_S).topics[topic]
    return len(found.partitions)


def _chunks(consumer: Any, topic: str, number: int) -> Iterator[list[dict[str, Any]]]:
    """The messages of a partition up to its present end."""
    from confluent_kafka import KafkaError, KafkaException, TopicPartition

    low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=IDLE_S)
    consumer.assign([TopicPartition(topic, number, low)])
    offset = low
    while offset < high:
        found = consumer.consume(min(MESSAGES, high - offset), IDLE_S)
        if not found:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        for message in found:
            if message.error() is not None:
                raise KafkaException(message.error())
        offset = found[-1].offset() + 1
        yield [_saved(message) for message in found if message.offset() < high]


def _saved(message: Any) -> dict[str, Any]:
    headers = [[name, _text(value)] for name, value in message.headers() or ()]
    return {
        "key": _text(message.key()),
        "value": _text(message.value()),
        "time": message.timestamp()[1],
        "headers": headers,
    }


def _messages(saved: Mapping[str, Any], vault: Vault) -> Iterator[dict[str, Any]]:
    for digest in saved["objects"]:
        yield from json.loads(vault.get(digest))


def _produce(producer: Any, topic: str, number: int, message: Mapping[str, Any], report: Any) -> None:
    while True:
        try:
            producer.produce(
                topic,
                partition=number,
                key=_bytes(message["key"]),
                value=_bytes(message["value"]),
                timestamp=message["time"],
                headers=[(name, _bytes(value)) for name, value in message["headers"]] or None,
                on_delivery=report,
            )
        except BufferError:  # the client's buffer is full
            producer.poll(0.1)
        else:
            producer.poll(0)
            return


def _text(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def _failure(topic: str, error: Any) -> BackupError:
    return BackupError(
        f"topic {topic}: {error.args[0].name()}; start the brokers, or correct serving.prediction_log_kafka"
        " and the variables CHURN_PREDICTION_LOG_KAFKA_*"
    )

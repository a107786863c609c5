"""A producer of purchases, to be killed.

Arguments: the brokers, the topic, a file with messages, one a line, and a file to which it appends the number
of each line that a broker has acknowledged. Lines with a number in that file are not sent.
"""

import os
import sys
import time
from pathlib import Path

from confluent_kafka import Producer

if __name__ == "__main__":
    brokers, topic, messages, acknowledged = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    known = set(acknowledged.read_text().split()) if acknowledged.exists() else set()
    record = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 0})

    def report(number: int, error: object) -> None:
        if error is None:
            os.write(record, f"{number}\n".encode())

    for number, line in enumerate(messages.read_bytes().splitlines()):
        if str(number) in known:
            continue
        producer.produce(topic, line, b"k", on_delivery=lambda error, _, at=number: report(at, error))
        producer.poll(0)
        time.sleep(0.002)
    raise SystemExit(producer.flush(60))

"""`churn stream` on real Kafka, Redis and PostgreSQL: equality with the batch build, lag, and memory.

    make bench-stream                      # 100,000 purchases, lag at 1,000 a second, 1 million purchases
    make bench-stream ARGS="--only equal"

`equal`: purchases with repetitions, disorder, late ones and messages that are none; a second consumer joins
and is killed (kill -9), so that partitions move twice. `lag`: a constant rate. `memory`: resident memory
while 1 million purchases pass. The servers are started on loopback, as in tests (tests/support/servers).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from support.servers.kafka_broker import Broker, kafka_broker
from support.servers.postgres import postgres
from support.servers.redis_servers import redis_server
from support.stream_workspace import Row, Shop, differences, message, purchases, shop, vectors
from support.waits import free_port, within

CUSTOMERS = 2_000
PARTITIONS = 4
PARTS = ("equal", "lag", "memory")


@dataclass(frozen=True)
class Stand:
    """The servers, and the workspace on them."""

    made: Shop
    broker: Broker
    database: str
    folder: Path

    def overlay(self, topic: str, database: str) -> Path:
        """The settings of a consumer of `topic`."""
        file = self.folder / f"{topic}.yaml"
        content = {
            "workspace": str(self.made.files.root),
            "data": self.made.data.model_dump(mode="json"),
            "features": {"online_store": dict(self.made.spec.online_store)},
            "stream": {
                "brokers": self.broker.address, "topic": topic, "dead_letters": f"{topic}.dead",
                "group": topic, "state": self.database + database,
            },
        }  # fmt: skip
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        return file


@dataclass
class Member:
    """A process `churn stream`."""

    process: psutil.Popen
    port: int

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def done(self) -> float:
        """Messages whose offsets were committed."""
        found = self.metrics()
        return sum(value for name, value in found.items() if name.startswith("churn_stream_messages_total"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--purchases", type=int, default=100_000, help="of the part `equal`")
    parser.add_argument("--rate", type=int, default=1_000, help="purchases a second of the part `lag`")
    parser.add_argument("--seconds", type=int, default=60, help="of the part `lag`")
    parser.add_argument("--many", type=int, default=1_000_000, help="purchases of the part `memory`")
    arguments = parser.parse_args()
    parts = arguments.only or PARTS
    with tempfile.TemporaryDirectory(prefix="stream-") as name, stand(Path(name)) as made:
        found: dict[str, Any] = {}
        if "equal" in parts:
            found["equal"] = equal(made, arguments.purchases)
            print(json.dumps(found["equal"]), flush=True)
        if "lag" in parts:
            found["lag"] = lag(made, arguments.rate, arguments.seconds)
            print(json.dumps(found["lag"]), flush=True)
        if "memory" in parts:
            found["memory"] = memory(made, arguments.many)
            print(json.dumps(found["memory"]), flush=True)
    return int(bool(found.get("equal", {}).get("differences")))


@contextmanager
def stand(folder: Path) -> Iterator[Stand]:
    with ExitStack() as stack:
        broker = stack.enter_context(kafka_broker(folder / "kafka"))
        redis = stack.enter_context(redis_server(folder / "redis"))
        database = stack.enter_context(postgres())
        yield Stand(shop(folder / "shop", CUSTOMERS, redis.online), broker, database, folder)


def equal(made: Stand, count: int) -> dict[str, Any]:
    """The customers whose vectors differ from the batch build of the same purchases."""
    topic, now = "equal", datetime.now(UTC)
    rng = np.random.default_rng(1)
    week = purchases(rng, CUSTOMERS + 200, count * 98 // 100, now - timedelta(days=7), now, "s")
    late = purchases(rng, CUSTOMERS, count - len(week), now - timedelta(days=200), now, "l")
    messages = disordered(rng, [*week, *late])
    overlay = made.overlay(topic, "studies")
    load(overlay)
    made.broker.create(topic, partitions=PARTITIONS)
    with member(overlay) as first:
        send(made, topic, messages[: len(messages) // 3])
        with member(overlay) as second:
            middle = messages[len(messages) // 3 : 2 * len(messages) // 3]
            for at in range(0, len(middle), 200):  # until the second member works too
                if second.done() > 0:
                    break
                send(made, topic, middle[at : at + 200])
                time.sleep(0.5)
            else:
                raise AssertionError("the second member got no message; give more purchases")
            send(made, topic, middle[at:])
            second.process.kill()
            second.process.wait()
        send(made, topic, messages[2 * len(messages) // 3 :])
        within(900, lambda: first.metrics()["churn_stream_behind_messages"] == 0 and first.done() > 0)
        time.sleep(15)  # the session of the killed member ends, and its partitions move
        within(900, lambda: first.metrics()["churn_stream_behind_messages"] == 0)
        time.sleep(2)
        counts = first.metrics()
    state = made.made.state(made.database + "studies", loaded=False)
    users = [user for page in state.customers(10_000) for user in page]
    held = sum(state.touch(page, 0, lambda held: held.rows.num_rows)[0] for page in state.customers(500))
    state.close()
    found = vectors(made.made, users)
    (made.folder / "offline").mkdir()
    complaints = differences(made.made, [*week, *late], found, made.folder / "offline")
    return {
        "purchases": count, "messages": len(messages), "customers": found.num_rows,
        "held": held, "expected": count + len(made.made.history), "differences": complaints,
        "refused by the first": counts['churn_stream_messages_total{outcome="refused"}'],
    }  # fmt: skip


def disordered(rng: np.random.Generator, rows: Sequence[Row]) -> list[tuple[bytes, bytes]]:
    """Key and message of each row, every tenth one twice, shuffled in windows, with some that are none."""
    order = np.argsort(np.arange(len(rows)) + rng.uniform(0, 2_000, len(rows)))
    pairs = [(str(rows[at][0]).encode(), message(rows[at])) for at in order]
    repeated = [pairs[at] for at in rng.choice(len(pairs), len(pairs) // 10, replace=False)]
    pairs += repeated
    pairs += [(b"1", b"{broken"), (b"2", b"[]")] * 10
    order = np.argsort(np.arange(len(pairs)) + rng.uniform(0, len(pairs) / 10, len(pairs)))
    return [pairs[at] for at in order]


def lag(made: Stand, rate: int, seconds: int) -> dict[str, Any]:
    """Quantiles of the time from sending a purchase until its customer's vector was confirmed online."""
    topic, now = "lag", datetime.now(UTC)
    overlay = made.overlay(topic, "mlflow")
    load(overlay)
    made.broker.create(topic, partitions=PARTITIONS)
    rows = purchases(np.random.default_rng(2), CUSTOMERS, rate * seconds, now - timedelta(days=7), now, "r")
    with member(overlay) as one:
        send(made, topic, [(b"1", message(rows[0]))])  # the first batch takes longer: imports, connections
        within(120, lambda: one.done() >= 1)
        before = one.metrics()
        send(made, topic, [(str(row[0]).encode(), message(row)) for row in rows[1:]], rate)
        within(300, lambda: one.done() >= len(rows))
        after = one.metrics()
    buckets = {
        float(name.split('"')[1].replace("+Inf", "inf")): after[name] - before.get(name, 0.0)
        for name in after
        if name.startswith("churn_stream_lag_seconds_bucket")
    }
    total = max(buckets.values())
    quantiles = {
        f"p{100 * share:g} at most": min(bound for bound, n in buckets.items() if n >= share * total)
        for share in (0.5, 0.9, 0.99, 0.999)
    }
    return {"rate": rate, "seconds": seconds, **quantiles, "load": os.getloadavg()[0]}


def memory(made: Stand, count: int) -> dict[str, Any]:
    """Resident memory, in MB, after each tenth of the purchases."""
    topic, now = "memory", datetime.now(UTC)
    overlay = made.overlay(topic, "memory")
    create_database(made, "memory")
    load(overlay)
    made.broker.create(topic, partitions=PARTITIONS)
    rng = np.random.default_rng(3)
    resident, began = [], time.monotonic()
    customers = max(count // 20, CUSTOMERS)
    with member(overlay) as one:
        for part in range(10):
            rows = purchases(rng, customers, count // 10, now - timedelta(days=7), now, f"m{part}-")
            send(made, topic, [(str(row[0]).encode(), message(row)) for row in rows])
            wanted = (part + 1) * (count // 10)
            within(1_800, lambda wanted=wanted: _slowly(one.done() >= wanted))  # type: ignore[misc]
            resident.append(round(one.process.memory_info().rss / 1e6))
    seconds = time.monotonic() - began
    return {
        "purchases": count,
        "customers": customers,
        "resident MB": resident,
        "a second": round(count / seconds),
    }


def _slowly(found: bool) -> bool:
    if not found:
        time.sleep(2)
    return found


def create_database(made: Stand, name: str) -> None:
    import psycopg

    address = made.database.replace("+psycopg", "") + "studies"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")


def load(overlay: Path) -> None:
    subprocess.run(
        [*_churn(), "stream", "load", "--config", str(overlay)], check=True, stdout=subprocess.DEVNULL
    )


@contextmanager
def member(overlay: Path) -> Iterator[Member]:
    port = free_port()
    command = [*_churn(), "stream", "--config", str(overlay), "--set", f"stream.address=127.0.0.1:{port}"]
    with (overlay.with_suffix(f".{port}.log")).open("wb") as log:
        process = psutil.Popen(command, stdout=log, stderr=log)
    one = Member(process, port)
    try:
        within(120, one.metrics, ignored=OSError)
        yield one
    except BaseException:
        sys.stderr.write(overlay.with_suffix(f".{port}.log").read_text()[-3000:])
        raise
    finally:
        if process.is_running():
            process.terminate()
            process.wait(60)


def _churn() -> list[str]:
    return [sys.executable, "-m", "churn"]


def send(made: Stand, topic: str, pairs: Sequence[tuple[bytes, bytes]], rate: int | None = None) -> None:
    """Send all; with `rate` evenly, so many a second."""
    from confluent_kafka import Producer

    producer = Producer(
        {"bootstrap.servers": made.broker.address, "linger.ms": 5, "enable.idempotence": True}
    )
    began = time.monotonic()
    for at, (key, value) in enumerate(pairs):
        if rate is not None and at % 20 == 0:
            time.sleep(max(began + at / rate - time.monotonic(), 0))
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.1)
        if at % 20 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0


if __name__ == "__main__":
    for program in ("java", "redis-server"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is not installed")
    sys.exit(main())

"""What the prediction log promises: every record once, none lost but what is counted, nobody waits."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from served_bundle import KEY, NOW, UNKNOWN, ServedBundle

from handlers import prediction_log
from handlers.bundle import BundleError
from handlers.identity import mask
from handlers.log_kafka import KafkaTopic
from handlers.log_segments import ParquetSegments, complete
from handlers.messages import Call
from handlers.packed import Layout, PackedColumns
from handlers.prediction_log import Origin, PredictionLog, Records, open_log
from handlers.predictor import input_types, load

TYPES = {"orders": "int64", "spend": "float64", "segment": "string"}
ORIGIN = Origin("v1", "d" * 64, "stable", 0.5, TYPES)


def records(*numbers: int, time_: datetime = NOW) -> Records:
    """A record a number; the numbers stand in the request ids."""
    rows = len(numbers)
    return Records(
        time=time_,
        latency_ms=1.5,
        request_ids=[str(number) for number in numbers],
        rows=range(rows),
        user_ids=[f"u_{number:032x}" for number in numbers],
        timestamps=[NOW - timedelta(days=1), *[None] * (rows - 1)],
        status=["ok", *["unknown"] * (rows - 1)],
        scores=[0.75, *[0.25] * (rows - 1)],
        columns={"orders": [None] * rows, "spend": [float("nan")] * rows, "segment": ["a"] * rows},
        overridden={},
    )


def read(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder).sort_values("request_id", ignore_index=True)


def numbers(folder: Path) -> list[int]:
    found = list(folder.glob("date=*/*.parquet"))
    return sorted(int(n) for file in found for n in pd.read_parquet(file)["request_id"])


def until(happened: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_a_scored_customer_is_one_record(bundle: ServedBundle, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bundle.store_environment.items():
            patch.setenv(name, value)
        loaded = load(bundle.model_dir, bundle.environment, "churn")
    origin = Origin(
        loaded.bundle.model_version, loaded.bundle.digest, "canary", 0.5, input_types(loaded.bundle)
    )
    log = PredictionLog(ParquetSegments(tmp_path, 60.0), origin)
    predictor = replace(loaded, clock=lambda: NOW, log=log)
    bodies = [
        {"user_id": 1},
        {"instances": [{"user_id": 1}, {"user_id": UNKNOWN}, {"user_id": 7}]},
        {"user_id": UNKNOWN},
        {"user_id": 1, "features": {"total_purchases": 0, "customer_segment": None}},
        {"instances": []},
    ]
    calls = [Call(f"request-{position}") for position in range(len(bodies))]
    answers = predictor.answer([{"body": json.dumps(body).encode()} for body in bodies], calls)
    log.close()
    assert [answer.http_status for answer in answers] == [200, 200, 404, 200, 400]
    written = read(tmp_path)
    assert written["request_id"].tolist() == ["request-0", "request-1", "request-1", "request-3"]
    assert written["user_id"].tolist() == [mask(i, KEY) for i in ("1", "1", "7", "1")]
    alone = json.loads(answers[0].body)
    first = written.iloc[0]
    assert (first["score"], first["decision"]) == (alone["churn_probability"], alone["prediction"])
    assert (first["time"], first["features_at"]) == (NOW, NOW - timedelta(days=1))
    assert (first["model_version"], first["variant"], first["status"]) == ("0123456789ab", "canary", "ok")
    assert (first["bundle_sha256"], first["threshold"]) == (loaded.bundle.digest, 0.5)
    assert 0 < first["latency_ms"] < 60_000
    for name, value in alone["features"].items():
        kept = first[f"feature_{name}"]
        assert pd.isna(kept) if value is None else kept == value
    what_if = written.iloc[3]
    assert list(what_if["overridden"]) == ["customer_segment", "total_purchases"]
    assert (what_if["feature_total_purchases"], what_if["feature_customer_segment"]) == (0, None)
    assert what_if["score"] == json.loads(answers[3].body)["churn_probability"]
    assert log.counts() == {"handed": 4, "written": 4, "dropped": 0, "waiting": 0}


def test_duckdb_reads_the_folder_with_the_declared_types(tmp_path: Path) -> None:
    log = PredictionLog(ParquetSegments(tmp_path, 60.0), ORIGIN)
    log.append(records(1, 2))
    log.append(records(3, time_=NOW))
    log.close()
    files = f"'{tmp_path}/*/*.parquet'"
    with duckdb.connect() as connection:
        query = f"select * from read_parquet({files}, union_by_name = true) order by request_id"
        table = connection.sql(query)
        types = dict(zip(table.columns, map(str, table.types), strict=True))
        rows = table.fetchall()
        spend = table.columns.index("feature_spend")
    assert types["time"] == types["features_at"] == "TIMESTAMP WITH TIME ZONE"
    assert (types["feature_orders"], types["feature_spend"]) == ("BIGINT", "DOUBLE")
    assert (types["overridden"], types["date"]) == ("VARCHAR[]", "DATE")
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert [row[spend] for row in rows] == [None] * 3, "a missing value is null, whatever it was in memory"


def test_a_segment_closes_after_its_window_or_when_it_is_full(tmp_path: Path) -> None:
    clock = [0.0]
    segments = ParquetSegments(tmp_path, 5.0, segment_rows=4, monotonic=lambda: clock[0])
    log = PredictionLog(segments, ORIGIN, take_every_s=0.01)
    log.append(records(1))
    until(lambda: log.counts()["written"] == 1)
    time.sleep(0.1)
    assert numbers(tmp_path) == []
    clock[0] = 5.0
    until(lambda: numbers(tmp_path) == [1])
    log.append(records(2, 3, 4, 5))
    until(lambda: numbers(tmp_path) == [1, 2, 3, 4, 5])
    log.close()
    assert list(tmp_path.glob(".*")) == []


def test_handing_over_waits_for_nothing_and_what_is_too_much_is_counted(tmp_path: Path) -> None:
    gate = threading.Event()

    class Slow(ParquetSegments):
        def write(self, batch: pa.RecordBatch) -> None:
            gate.wait(10)
            super().write(batch)

    log = PredictionLog(Slow(tmp_path, 60.0), ORIGIN, queue_rows=10, take_every_s=0.01)
    slowest = 0.0
    for number in range(40):
        began = time.perf_counter()
        log.append(records(number))
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 0.05
    assert log.counts() == {"handed": 40, "written": 0, "dropped": 30, "waiting": 10}
    gate.set()
    log.close()
    assert numbers(tmp_path) == list(range(10))
    log.append(records(99))
    assert log.counts()["dropped"] == 31


def test_records_that_do_not_fit_are_dropped_alone(tmp_path: Path) -> None:
    log = PredictionLog(ParquetSegments(tmp_path, 60.0), ORIGIN)
    odd = replace(records(2), columns=records(2).columns | {"orders": ["many"]})
    log.append(records(1))
    log.append(odd)
    log.append(records(3))
    log.close()
    assert numbers(tmp_path) == [1, 3]
    assert log.counts() == {"handed": 3, "written": 2, "dropped": 1, "waiting": 0}


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size`: what a write then says is what a full disk says."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_costs_what_is_counted_and_no_more(tmp_path: Path) -> None:
    log = PredictionLog(ParquetSegments(tmp_path, 0.02), ORIGIN, queue_rows=10, take_every_s=0.01)
    log.append(records(0))
    until(lambda: numbers(tmp_path) == [0])
    with full_disk(64):
        for number in range(1, 31):
            log.append(records(number))
        until(lambda: log.counts()["dropped"] == 20)
        time.sleep(0.1)
        assert numbers(tmp_path) == [0]
    until(lambda: log.counts()["written"] == 11)
    log.append(records(31))
    log.close()
    assert numbers(tmp_path) == [*range(11), 31]
    assert list(tmp_path.glob(".*")) == []
    assert log.counts() == {"handed": 32, "written": 12, "dropped": 20, "waiting": 0}


WRITER = """
import sys, time, threading, signal
sys.path[:0] = [{tests!r}, {repository!r}]
from test_prediction_log import ORIGIN, PredictionLog, ParquetSegments, Path, records
log = PredictionLog(ParquetSegments(Path({folder!r}), {window}), ORIGIN)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
number = 0
while True:
    log.append(records(number))
    print(number, time.time(), flush=True)
    number += 1
    time.sleep(0.002)
"""


def ended(folder: Path, how: signal.Signals, window: float, after_s: float = 2.0) -> list[tuple[int, float]]:
    """Let a process write until it is ended; the numbers that it had handed over, and when."""
    here = Path(__file__).resolve()
    script = WRITER.format(
        tests=str(here.parent), repository=str(here.parents[2]), folder=str(folder), window=window
    )
    environment = {**os.environ, "PYTHONPATH": str(here.parents[1])}
    writer = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert writer.stdout is not None
    lines = [writer.stdout.readline()]
    timer = threading.Timer(after_s, writer.send_signal, [how])
    timer.start()
    lines += writer.stdout.readlines()
    writer.wait(20)
    writer.stdout.close()
    pairs = [line.split() for line in lines if line.endswith("\n")]
    return [(int(number), float(moment)) for number, moment in pairs]


def test_a_clean_stop_loses_nothing(tmp_path: Path) -> None:
    handed = ended(tmp_path, signal.SIGTERM, window=60.0)
    assert len(handed) > 100
    found = numbers(tmp_path)
    assert found[: len(handed)] == [number for number, _ in handed]
    assert len(found) <= len(handed) + 1, "one may be handed over and not yet told"
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("window", [60.0, 0.3])
def test_kill_9_loses_no_more_than_the_last_moments(tmp_path: Path, window: float) -> None:
    handed = ended(tmp_path, signal.SIGKILL, window)
    complete(tmp_path)  # as the next worker does at its start
    found = numbers(tmp_path)
    assert found == list(range(len(found))), "once each, and no gap"
    lost = [moment for number, moment in handed if number >= len(found)]
    assert len(found) > 100
    assert not lost or handed[-1][1] - lost[0] < 1.0, "more was lost than was handed over just before"
    assert complete(tmp_path) == 0
    assert list(tmp_path.glob(".*")) == []


def test_the_next_worker_completes_what_a_killed_one_left_and_spares_the_living(tmp_path: Path) -> None:
    living = PredictionLog(ParquetSegments(tmp_path, 60.0), ORIGIN, take_every_s=0.01)
    living.append(records(10_000))
    until(lambda: living.counts()["written"] == 1)
    killed = tmp_path / "killed"
    ended(killed, signal.SIGKILL, window=60.0, after_s=1.0)
    [spool] = killed.glob(".*.spool")
    cut = spool.read_bytes()[:-7]  # and the last message did not reach the disk whole
    moved = tmp_path / spool.name
    moved.write_bytes(cut)
    (tmp_path / f"{spool.name.removesuffix('.spool')}.tmp").write_bytes(b"half a segment")
    next_one = PredictionLog(ParquetSegments(tmp_path, 60.0), ORIGIN, take_every_s=0.01)
    until(lambda: not moved.exists())
    found = numbers(tmp_path)
    assert found == list(range(len(found)))
    assert len(found) > 20
    assert not list(tmp_path.glob(".*.tmp"))
    for log in (living, next_one):
        log.close()
    assert numbers(tmp_path)[-1] == 10_000


def test_a_segment_that_was_renamed_just_before_the_kill_is_not_written_twice(tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    ended(killed, signal.SIGKILL, window=60.0, after_s=1.0)
    [spool] = killed.glob(".*.spool")
    left = spool.read_bytes()
    rows = complete(killed)
    spool.write_bytes(left)  # the removal of the spool did not happen
    assert complete(killed) == 0
    assert len(numbers(killed)) == rows > 0
    assert not spool.exists()


def test_the_environment_names_the_sink(tmp_path: Path) -> None:
    assert open_log({}, ORIGIN) is None
    log = open_log({"CHURN_PREDICTION_LOG": str(tmp_path / "new")}, ORIGIN)
    assert log is not None
    log.close()
    assert (tmp_path / "new").is_dir()
    file = tmp_path / "file"
    file.touch()
    for wrong, complaint in (
        ({"CHURN_PREDICTION_LOG": str(file)}, "CHURN_PREDICTION_LOG: .*File exists"),
        (
            {"CHURN_PREDICTION_LOG": str(tmp_path), "CHURN_PREDICTION_LOG_WINDOW_S": "soon"},
            "_WINDOW_S: expected",
        ),
        ({"CHURN_PREDICTION_LOG": str(tmp_path), "CHURN_PREDICTION_LOG_WINDOW_S": "0"}, "a number above 0"),
        ({"CHURN_PREDICTION_LOG_KAFKA": "localhost:9092"}, "expected host:port/topic"),
        ({"CHURN_PREDICTION_LOG": "a", "CHURN_PREDICTION_LOG_KAFKA": "b/c"}, "set one of them"),
    ):
        with pytest.raises(BundleError, match=complaint):
            open_log(wrong, ORIGIN)


def test_kafka_gets_every_record_as_json() -> None:
    """Over librdkafka's own broker, which speaks the protocol on loopback."""
    kafka = pytest.importorskip("confluent_kafka")
    broker = kafka.Producer({"test.mock.num.brokers": 1})
    [address] = [f"{b.host}:{b.port}" for b in broker.list_topics(timeout=10).brokers.values()]
    topic = KafkaTopic(address, "predictions")
    log = PredictionLog(topic, ORIGIN)
    log.append(records(1, 2))
    log.append(records(3))
    until(lambda: topic.delivered == 3, 20)
    log.close()
    assert log.counts() == {"handed": 3, "written": 3, "dropped": 0, "waiting": 0}
    consumer = kafka.Consumer(
        {"bootstrap.servers": address, "group.id": "test", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["predictions"])
    messages = []
    deadline = time.monotonic() + 20
    while len(messages) < 3 and time.monotonic() < deadline:
        messages += [m for m in [consumer.poll(0.5)] if m is not None and m.error() is None]
    consumer.close()
    values = sorted((json.loads(m.value()) for m in messages), key=lambda value: value["request_id"])
    assert [value["request_id"] for value in values] == ["1", "2", "3"]
    assert {m.key().decode() for m in messages} == {value["user_id"] for value in values}
    assert values[0]["feature_spend"] is None
    assert datetime.fromisoformat(values[0]["time"]) == NOW


def test_kafka_that_is_away_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("confluent_kafka")
    topic = KafkaTopic("127.0.0.1:1", "predictions")
    log = PredictionLog(topic, ORIGIN)
    log.append(records(1, 2))
    log.close()
    assert log.counts() == {"handed": 2, "written": 0, "dropped": 2, "waiting": 0}
    assert caplog.text.count("kafka: ") == 1


def test_features_that_came_packed_are_logged_as_those_that_did_not() -> None:
    layout = Layout(list(TYPES.items()))
    types = {**TYPES, "spend_a_month": "float64"}
    origin = replace(ORIGIN, types=types)
    columns = {"orders": [3, None, 2**53], "spend": [1.5, None, float("nan")], "segment": ["a", None, "ü"]}
    stored = layout.pack(columns, [0] * 3)
    packed = PackedColumns.of(layout, [one[0] for one in stored if one], [one[1] for one in stored if one])
    packed.derived["spend_a_month"] = np.array([0.5, np.nan, 2.0])
    plain = columns | {"spend_a_month": [0.5, None, 2.0]}
    schema = prediction_log._schema(origin)

    def logged(*kinds: Any) -> list[dict[str, Any]]:
        batches = [
            replace(records(1, 2, 3), columns=kind, rows=rows, request_ids=["r"] * len(rows))
            for kind, rows in zip(kinds, ([0, 1, 2], range(3), [2, 0, 0, 1]), strict=True)
        ]
        return prediction_log.to_arrow(batches, origin, schema).to_pylist()

    expected = logged(plain, plain, plain)
    assert len(expected) == 10
    assert [row["feature_orders"] for row in expected[-4:]] == [2**53, 3, 3, None]
    assert logged(packed, packed, packed) == expected
    assert logged(packed, plain, packed) == logged(plain, packed, plain) == expected

"""The prediction log writes each record once, counts all lost ones, and never makes a request wait."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from handlers.identity import mask
from handlers.loading import input_types, load
from handlers.protocol.messages import Call
from handlers.records import record as log_records
from handlers.records import segments as log_segments
from handlers.records.log import PredictionLog
from handlers.records.record import Origin, schema_of, to_arrow
from handlers.records.segments import ParquetSegments, complete
from handlers.store.columns import PackedColumns
from handlers.store.packed import Layout
from handlers.telemetry import Telemetry
from support.prediction_records import ORIGIN, TYPES, records
from support.served_bundle import KEY, NOW, UNKNOWN, ServedBundle
from support.waits import within


def read(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder).sort_values("request_id", ignore_index=True)


def numbers(folder: Path) -> list[int]:
    found = list(folder.glob("date=*/*.parquet"))
    return sorted(int(n) for file in found for n in pd.read_parquet(file)["request_id"])


def test_a_scored_customer_is_one_record(bundle: ServedBundle, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bundle.store_environment.items():
            patch.setenv(name, value)
        loaded = load(bundle.model_dir, bundle.environment, "churn")
    origin = Origin(
        loaded.bundle.model_version, loaded.bundle.digest, "canary", 0.5, input_types(loaded.bundle)
    )
    log = PredictionLog(lambda: ParquetSegments(tmp_path, 60.0), origin)
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
        logged_value = first[f"feature_{name}"]
        assert pd.isna(logged_value) if value is None else logged_value == value
    what_if = written.iloc[3]
    assert list(what_if["overridden"]) == ["customer_segment", "total_purchases"]
    assert (what_if["feature_total_purchases"], what_if["feature_customer_segment"]) == (0, None)
    assert what_if["score"] == json.loads(answers[3].body)["churn_probability"]
    assert log.counts() == {"handed": 4, "written": 4, "dropped": 0, "waiting": 0}


@pytest.mark.parametrize("first", [(), ("a" * 32, None)])
def test_a_record_names_its_trace_if_it_has_one(first: tuple[str | None, ...]) -> None:
    batches = [
        replace(records(1, 2), trace_ids=first),
        replace(records(3), trace_ids=("b" * 32,)),
        records(4),
    ]
    logged = to_arrow(batches, ORIGIN, schema_of(ORIGIN))
    assert logged.column("trace_id").to_pylist() == [*(first or (None, None)), "b" * 32, None]
    without_traces = to_arrow([records(1)], ORIGIN, schema_of(ORIGIN)).column("trace_id")
    assert (without_traces.type, without_traces.null_count) == (pa.string(), 1)


def test_duckdb_reads_the_folder_with_the_declared_types(tmp_path: Path) -> None:
    log = PredictionLog(lambda: ParquetSegments(tmp_path, 60.0), ORIGIN)
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
    assert [row[spend] for row in rows] == [None] * 3, "a missing value is null in any representation"


def test_a_segment_is_closed_after_its_window_or_when_it_is_full(tmp_path: Path) -> None:
    clock = [0.0]
    segments = ParquetSegments(tmp_path, 5.0, segment_rows=4, monotonic=lambda: clock[0])
    log = PredictionLog(lambda: segments, ORIGIN, take_every_s=0.01)
    log.append(records(1))
    within(10, lambda: log.counts()["written"] == 1)
    time.sleep(0.1)
    assert numbers(tmp_path) == []
    clock[0] = 5.0
    within(10, lambda: numbers(tmp_path) == [1])
    log.append(records(2, 3, 4, 5))
    within(10, lambda: numbers(tmp_path) == [1, 2, 3, 4, 5])
    log.close()
    assert list(tmp_path.glob(".*")) == []


def test_append_never_waits_and_counts_records_beyond_the_limit(tmp_path: Path) -> None:
    gate = threading.Event()

    class Slow(ParquetSegments):
        def write(self, batch: pa.RecordBatch) -> None:
            gate.wait(10)
            super().write(batch)

    log = PredictionLog(lambda: Slow(tmp_path, 60.0), ORIGIN, queue_rows=10, take_every_s=0.01)
    slowest = 0.0
    for number in range(40):
        began = time.perf_counter()
        log.append(records(number))
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 1, "an append that waits for the sink takes 10 s"
    assert log.counts() == {"handed": 40, "written": 0, "dropped": 30, "waiting": 10}
    gate.set()
    log.close()
    assert numbers(tmp_path) == list(range(10))
    log.append(records(99))
    assert log.counts()["dropped"] == 31


def test_only_records_that_do_not_fit_the_schema_are_dropped(tmp_path: Path) -> None:
    log = PredictionLog(lambda: ParquetSegments(tmp_path, 60.0), ORIGIN)
    odd = replace(records(2), columns=records(2).columns | {"orders": ["many"]})
    log.append(records(1))
    log.append(odd)
    log.append(records(3))
    log.close()
    assert numbers(tmp_path) == [1, 3]
    assert log.counts() == {"handed": 3, "written": 2, "dropped": 1, "waiting": 0}
    assert read(tmp_path)["dropped_before"].sum() == 1


def test_the_records_after_an_outage_state_how_many_were_dropped_in_it(tmp_path: Path) -> None:
    """`churn monitor` reads files and no counters of workers that have ended."""
    gate = threading.Event()

    class Away(ParquetSegments):
        def write(self, batch: pa.RecordBatch) -> None:
            if not gate.is_set():
                raise OSError("away")
            super().write(batch)

    log = PredictionLog(lambda: Away(tmp_path, 60.0), ORIGIN, queue_rows=3, take_every_s=0.01)
    for number in range(10):
        log.append(records(number))
    gate.set()
    within(10, lambda: log.counts()["waiting"] == 0)
    log.append(records(10, 11))
    log.close()
    written = read(tmp_path).sort_values("request_id", key=lambda ids: ids.astype(int))
    assert len(written) + written["dropped_before"].sum() == 12
    assert log.counts()["dropped"] == written["dropped_before"].sum() >= 7


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Limits files of this process to `size` bytes; a write beyond it fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_loses_only_counted_records(tmp_path: Path) -> None:
    log = PredictionLog(lambda: ParquetSegments(tmp_path, 0.02), ORIGIN, queue_rows=10, take_every_s=0.01)
    log.append(records(0))
    within(10, lambda: numbers(tmp_path) == [0])
    with full_disk(64):
        for number in range(1, 31):
            log.append(records(number))
        within(10, lambda: log.counts()["dropped"] == 20)
        time.sleep(0.1)
        assert numbers(tmp_path) == [0]
    within(10, lambda: log.counts()["written"] == 11)
    log.append(records(31))
    log.close()
    assert numbers(tmp_path) == [*range(11), 31]
    assert list(tmp_path.glob(".*")) == []
    assert log.counts() == {"handed": 32, "written": 12, "dropped": 20, "waiting": 0}


WRITER = """
import atexit, sys, time, threading, signal
from pathlib import Path
sys.path[:0] = [{tests!r}, {repository!r}]
from handlers.records.log import PredictionLog
from handlers.records.segments import ParquetSegments
from support.prediction_records import ORIGIN, records
log = PredictionLog(lambda: ParquetSegments(Path({folder!r}), {window}), ORIGIN)
atexit.register(log.close)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
number = 0
while True:
    log.append(records(number))
    print(number, time.time(), flush=True)
    number += 1
    time.sleep(0.002)
"""


def ended(folder: Path, how: signal.Signals, window: float, after_s: float = 2.0) -> list[tuple[int, float]]:
    """Ends a process that writes; returns the numbers that it had handed over, with their times."""
    here = Path(__file__).resolve()
    script = WRITER.format(
        tests=str(here.parents[1]), repository=str(here.parents[2]), folder=str(folder), window=window
    )
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
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
    assert len(found) <= len(handed) + 1, "one may be handed over and not printed yet"
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("window", [60.0, 0.3])
def test_kill_9_loses_no_more_than_the_last_moments(tmp_path: Path, window: float) -> None:
    handed = ended(tmp_path, signal.SIGKILL, window)
    complete(tmp_path)  # as the next worker does when it starts
    found = numbers(tmp_path)
    assert found == list(range(len(found))), "each number once, without a gap"
    lost = [moment for number, moment in handed if number >= len(found)]
    assert len(found) > 100
    assert not lost or handed[-1][1] - lost[0] < 1.0, "more was lost than was handed over just before"
    assert complete(tmp_path) == 0
    assert list(tmp_path.glob(".*")) == []


def test_a_worker_completes_spools_of_killed_workers_and_not_those_of_running_ones(tmp_path: Path) -> None:
    running = PredictionLog(lambda: ParquetSegments(tmp_path, 60.0), ORIGIN, take_every_s=0.01)
    running.append(records(10_000))
    within(10, lambda: running.counts()["written"] == 1)
    killed = tmp_path / "killed"
    ended(killed, signal.SIGKILL, window=60.0, after_s=1.0)
    [spool] = killed.glob(".*.spool")
    cut = spool.read_bytes()[:-7]  # the last message is incomplete
    moved = tmp_path / spool.name
    moved.write_bytes(cut)
    (tmp_path / f"{spool.name.removesuffix('.spool')}.tmp").write_bytes(b"half a segment")
    next_one = PredictionLog(lambda: ParquetSegments(tmp_path, 60.0), ORIGIN, take_every_s=0.01)
    within(10, lambda: not moved.exists())
    found = numbers(tmp_path)
    assert found == list(range(len(found)))
    assert len(found) > 20
    assert not list(tmp_path.glob(".*.tmp"))
    for log in (running, next_one):
        log.close()
    assert numbers(tmp_path)[-1] == 10_000


def test_a_segment_that_was_renamed_just_before_the_kill_is_not_written_twice(tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    ended(killed, signal.SIGKILL, window=60.0, after_s=1.0)
    [spool] = killed.glob(".*.spool")
    left = spool.read_bytes()
    rows = complete(killed)
    spool.write_bytes(left)  # as if it had not been removed
    assert complete(killed) == 0
    assert len(numbers(killed)) == rows > 0
    assert not spool.exists()


def test_no_error_of_a_sink_ends_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Unexpected errors in `write` and `open`, and errors of Arrow."""
    failing = [KeyError("x"), pa.ArrowInvalid("y"), AttributeError("z")]
    made = []

    class Fragile(ParquetSegments):
        def open(self, schema: pa.Schema) -> None:
            if len(made) == 2:
                raise RuntimeError("no client library")
            super().open(schema)

        def tick(self) -> None:
            if failing and self._batches:
                raise failing.pop()
            super().tick()

    def make() -> Fragile:
        made.append(Fragile(tmp_path, 60.0))
        return made[-1]

    log = PredictionLog(make, ORIGIN, take_every_s=0.01)
    for number in range(4):
        log.append(records(number))
        within(10, lambda number=number: log.counts()["written"] == number + 1)
        time.sleep(0.03)
    log.close()
    assert numbers(tmp_path) == [0, 1, 2, 3]
    assert log.counts() == {"handed": 4, "written": 4, "dropped": 0, "waiting": 0}
    assert log.failures() == 4
    assert len(made) == 5
    assert list(tmp_path.glob(".*")) == []
    assert "AttributeError" in caplog.text


def test_a_batch_that_fails_with_every_sink_is_dropped_and_the_log_continues(tmp_path: Path) -> None:
    class Allergic(ParquetSegments):
        def write(self, batch: pa.RecordBatch) -> None:
            if "13" in batch.column("request_id").to_pylist():
                raise pa.ArrowInvalid("13")
            super().write(batch)

    log = PredictionLog(lambda: Allergic(tmp_path, 60.0), ORIGIN, take_every_s=0.01)
    for number in (12, 13, 14):
        log.append(records(number))
        within(10, lambda: log.counts()["waiting"] == 0)
    log.close()
    assert numbers(tmp_path) == [12, 14]
    assert log.counts() == {"handed": 3, "written": 2, "dropped": 1, "waiting": 0}


def test_an_unreadable_spool_does_not_stop_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".20260101T000000-1.spool").write_bytes(b"")
    (tmp_path / ".20260101T000001-2.spool").write_bytes(b"\xff" * 4096)
    unfit = pa.record_batch({"time": pa.array(["no time"])})
    with pa.ipc.new_stream(str(tmp_path / ".20260101T000002-3.spool"), unfit.schema) as stream:
        stream.write(unfit)
    monkeypatch.setattr("handlers.records.segments._write", _refusing(log_segments._write))
    log = PredictionLog(lambda: ParquetSegments(tmp_path, 60.0), ORIGIN, take_every_s=0.01)
    log.append(records(1))
    log.close()
    assert numbers(tmp_path) == [1]
    assert [path.name for path in tmp_path.glob(".*")] == [".20260101T000002-3.unreadable"]


def _refusing(write: Any) -> Any:
    """Writes segments, but raises an error for a table with another schema."""

    def refusing(folder: Path, stem: str, table: pa.Table) -> None:
        if table.schema != log_records.schema_of(ORIGIN):
            raise pa.ArrowInvalid("another schema")
        write(folder, stem, table)

    return refusing


def test_records_lost_at_the_end_are_exported(
    bundle: ServedBundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(ParquetSegments):
        def write(self, batch: pa.RecordBatch) -> None:
            raise OSError(28, "No space left on device")

    loaded = load(bundle.model_dir, bundle.environment, "churn")
    log = PredictionLog(
        lambda: Full(tmp_path, 60.0),
        replace(ORIGIN, types=input_types(loaded.bundle)),
        take_every_s=0.01,
        close_timeout_s=0.1,
    )
    sending = Telemetry("v", "stable")
    sending.watch_log(log.counts, log.failures)
    predictor = replace(loaded, clock=lambda: NOW, log=log, telemetry=sending)
    sending.start()
    assert predictor.answer([{"body": b'{"user_id": 1}'}])[0].http_status == 200
    predictor.close()
    dropped = [line for line in caplog.text.splitlines() if "outcome:dropped" in line]
    assert "churn_log_records_total.Count:1.0|" in dropped[-1]


ENTRY = """
import resource, sys
sys.path.insert(0, {model_dir!r})
import churn_handler

class Context:
    system_properties = {{"model_dir": {model_dir!r}}}
    model_name = "churn"
    def get_all_request_header(self, idx): return {{"explain": "False"}}
    def get_request_id(self, idx): return "server's"
    def set_response_header(self, idx, name, value): pass
    def set_response_status(self, code, phrase, idx): assert code == 200
    def set_response_content_type(self, idx, value): pass

handler = churn_handler.ChurnHandler()
import logging
logging.getLogger("churn.metrics").addHandler(logging.StreamHandler(sys.stdout))
handler.initialize(Context())
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, hard))
handler.handle([{{"body": b'{{"user_id": 1}}'}}], Context())
"""


@pytest.mark.parametrize(("limit", "outcome"), [(2**30, "written"), (0, "dropped")])
def test_the_worker_writes_and_counts_until_its_end(
    bundle: ServedBundle, tmp_path: Path, limit: int, outcome: str
) -> None:
    with zipfile.ZipFile(bundle.archive) as archive:
        archive.extractall(tmp_path / "unpacked")
    script = ENTRY.format(model_dir=str(tmp_path / "unpacked"), limit=limit)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, **bundle.environment, "CHURN_PREDICTION_LOG": str(tmp_path / "log")},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    last = [line for line in done.stdout.splitlines() if f"outcome:{outcome}" in line][-1]
    assert "churn_log_records_total.Count:1.0|" in last


def test_packed_features_are_logged_like_others() -> None:
    layout = Layout(list(TYPES.items()))
    types = {**TYPES, "spend_a_month": "float64"}
    origin = replace(ORIGIN, types=types)
    columns = {"orders": [3, None, 2**53], "spend": [1.5, None, float("nan")], "segment": ["a", None, "ü"]}
    stored = layout.pack(columns, [0] * 3)
    packed = PackedColumns.of(layout, [one[0] for one in stored if one], [one[1] for one in stored if one])
    packed.derived["spend_a_month"] = np.array([0.5, np.nan, 2.0])
    plain = columns | {"spend_a_month": [0.5, None, 2.0]}
    schema = log_records.schema_of(origin)

    def logged(*kinds: Any) -> list[dict[str, Any]]:
        batches = [
            replace(records(1, 2, 3), columns=kind, rows=rows, request_ids=["r"] * len(rows))
            for kind, rows in zip(kinds, ([0, 1, 2], range(3), [2, 0, 0, 1]), strict=True)
        ]
        return log_records.to_arrow(batches, origin, schema).to_pylist()

    expected = logged(plain, plain, plain)
    assert len(expected) == 10
    assert [row["feature_orders"] for row in expected[-4:]] == [2**53, 3, 3, None]
    assert logged(packed, packed, packed) == expected
    assert logged(packed, plain, packed) == logged(plain, packed, plain) == expected

"""The prediction log as evidence: each row read once, in its window, each customer counted once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pytest import approx

from core.errors import ServingError
from handlers.identity import PROBE_ID
from handlers.records.record import Origin, Records, schema_of, to_arrow
from handlers.records.segments import ParquetSegments
from rollout.config import RolloutConfig
from rollout.counts import quantile
from rollout.observers.envoy_stats import EPOCH, between
from rollout.observers.live import LiveObserver
from rollout.observers.log_files import LogFiles
from rollout.observers.log_rows import Labels
from rollout.observers.observer import Opened
from rollout.observers.prediction_log import PredictionLogReader

from support.servers.upstreams import split  # isort: skip

BEGUN = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HORIZON = timedelta(days=90)


@dataclass(frozen=True)
class Answer:
    """What is logged of the customers of a batch, besides their scores."""

    status: str = "ok"
    country: str = "CH"
    spend: float | None = 1.0
    what_if: bool = False


class Worker:
    """Writes the log as a worker does, one batch in each call."""

    def __init__(self, folder: Path, variant: str, window_s: float = 3600, offset: timedelta = 0 * SECOND):
        self._origin = Origin(
            "0123456789ab", "0" * 64, variant, 0.5, {"country": "string", "spend": "float64"}
        )
        self._schema = schema_of(self._origin)
        self._offset = offset
        self._now = 0.0
        self.sink = ParquetSegments(folder, window_s, monotonic=lambda: self._now)
        self.sink.open(self._schema)

    def log(
        self,
        at: datetime,
        users: Sequence[str],
        scores: Sequence[float],
        answer: Answer = Answer(),
        requests: Sequence[str] | None = None,
    ) -> None:
        rows = range(len(users))
        records = Records(
            time=at + self._offset,
            latency_ms=1.0,
            request_ids=requests or [f"r-{user}" for user in users],
            rows=rows,
            user_ids=users,
            timestamps=[at] * len(users),
            status=[answer.status] * len(users),
            scores=scores,
            columns={"country": [answer.country] * len(users), "spend": [answer.spend] * len(users)},
            overridden=dict.fromkeys(rows, ("spend",)) if answer.what_if else {},
        )
        self.sink.write(to_arrow([records], self._origin, self._schema))

    def seal(self) -> None:
        self._now += 10_000
        self.sink.tick()


def window(ended_s: float | None = None, begun_s: float = 0, mirror: bool = False) -> Opened:
    ended = None if ended_s is None else BEGUN + ended_s * SECOND
    return Opened(0 if mirror else 50, mirror, BEGUN + begun_s * SECOND, ended)


def test_open_spools_and_closed_segments_are_read_once(tmp_path: Path) -> None:
    reader, stable, canary = (
        PredictionLogReader(LogFiles(tmp_path)),
        Worker(tmp_path, "stable"),
        Worker(tmp_path, "canary"),
    )
    seen = []
    for second in range(6):
        stable.log(BEGUN + second * SECOND, [f"s{second}"], [0.1])
        canary.log(BEGUN + second * SECOND, [f"c{second}"], [0.9])
        reader.read(BEGUN)
        logged = reader.logged(window())
        seen.append((logged.stable.customers, logged.canary.customers))
        if second in (1, 4):
            stable.seal()
    canary.seal()
    reader.read(BEGUN)
    reader.read(BEGUN)
    assert seen == [(n, n) for n in range(1, 7)]
    assert (reader.logged(window()).stable.customers, reader.logged(window()).canary.customers) == (6, 6)


def test_a_message_that_is_being_written_waits_for_its_end(tmp_path: Path) -> None:
    worker, reader = Worker(tmp_path, "canary"), PredictionLogReader(LogFiles(tmp_path))
    worker.log(BEGUN, ["a"], [0.5])
    worker.log(BEGUN, ["b"], [0.5])
    [spool] = tmp_path.glob(".*.spool")
    whole = spool.read_bytes()
    spool.write_bytes(whole[:-40])
    reader.read(BEGUN)
    assert reader.logged(window()).canary.customers == 1
    spool.write_bytes(whole)
    reader.read(BEGUN)
    assert reader.logged(window()).canary.customers == 2


def test_late_segments_belong_to_the_window_of_their_records(tmp_path: Path) -> None:
    reader = PredictionLogReader(LogFiles(tmp_path))
    first, second = window(10), window(None, begun_s=10)
    reader.read(BEGUN)
    worker = Worker(tmp_path, "canary")
    worker.log(BEGUN + 5 * SECOND, ["early"], [0.2])
    worker.log(BEGUN + 15 * SECOND, ["late"], [0.8])
    worker.log(BEGUN - 5 * SECOND, ["before"], [0.5])
    worker.seal()
    assert reader.logged(first).canary.customers == 0
    reader.read(BEGUN)
    assert reader.logged(first).canary.scores.tolist() == [0.2]
    assert reader.logged(second).canary.scores.tolist() == [0.8]


def test_a_customer_counts_once_in_a_window_by_the_first_answer(tmp_path: Path) -> None:
    reader, worker = PredictionLogReader(LogFiles(tmp_path)), Worker(tmp_path, "stable")
    for second, score in enumerate((0.7, 0.2, 0.2)):
        worker.log(BEGUN + second * SECOND, ["one"], [score])
    worker.log(BEGUN, ["two"], [0.4])
    reader.read(BEGUN)
    arm = reader.logged(window()).stable
    assert (arm.customers, arm.high_risk, sorted(arm.scores)) == (2, 1, [0.4, 0.7])


def test_a_look_costs_no_more_for_rows_that_were_seen(tmp_path: Path) -> None:
    """One row for each customer and window is in memory, and rows that were read ten minutes ago are
    dropped."""
    reader, worker = PredictionLogReader(LogFiles(tmp_path)), Worker(tmp_path, "stable")
    for minute in range(30):
        worker.log(BEGUN + minute * 60 * SECOND, [f"u{n}" for n in range(20)], [0.1 + minute / 100] * 20)
        reader.read(BEGUN)
        arm = reader.logged(window()).stable
        assert (arm.customers, set(arm.scores)) == (20, {0.1})
    assert sum(len(chunk.score) for chunk in reader._chunks) <= 20 * 12
    assert all(found.rows is None or len(found.rows.score) == 20 for found in reader._windows.values())
    later = reader.logged(window(None, begun_s=25 * 60)).stable
    assert later.customers == 20 and set(later.scores) == {0.35}, "a window that begins anew has its rows"


def test_what_was_wrong_with_features_is_counted(tmp_path: Path) -> None:
    reader, worker = PredictionLogReader(LogFiles(tmp_path), ["country"]), Worker(tmp_path, "canary")
    worker.log(BEGUN, ["a"], [0.1], Answer("stale"))
    worker.log(BEGUN, ["b"], [0.2], Answer("degraded"))
    worker.log(BEGUN, ["c"], [0.3], Answer("unknown", country="DE"))
    worker.log(BEGUN, ["d"], [0.4], Answer(spend=None))
    worker.log(BEGUN, [PROBE_ID], [0.5], Answer("unknown"))  # Envoy's health check, no customer
    worker.log(BEGUN, ["e"], [0.6], Answer(what_if=True))  # not by the customer's own features
    reader.read(BEGUN)
    arm = reader.logged(window()).canary
    assert (arm.customers, arm.missing, arm.stale, arm.degraded) == (4, 2, 1, 1)
    assert {name: len(scores) for name, scores in arm.segments.items()} == {"country=CH": 3, "country=DE": 1}
    with pytest.raises(ServingError, match=r"rollout\.segments: town: not a feature"):
        PredictionLogReader(LogFiles(tmp_path), ["town"]).read(BEGUN)


def test_a_shadow_pairs_the_same_request_and_customer(tmp_path: Path) -> None:
    reader, stable, canary = (
        PredictionLogReader(LogFiles(tmp_path)),
        Worker(tmp_path, "stable"),
        Worker(tmp_path, "canary"),
    )
    stable.log(BEGUN, ["a", "b"], [0.5, 0.6], requests=["1", "1"])
    stable.log(BEGUN + SECOND, ["c", "a"], [0.7, 0.5], requests=["2", "3"])
    canary.log(BEGUN + SECOND, ["b", "a"], [0.65, 0.4], requests=["1", "1"])
    canary.log(BEGUN + 2 * SECOND, ["c", "a"], [0.7, 0.4], requests=["9", "3"])
    reader.read(BEGUN)
    assert reader.logged(window(mirror=True)).pairs.tolist() == approx([-0.1, 0.05])
    assert len(reader.logged(window()).pairs) == 0


def test_outcomes_join_the_predictions_that_were_made_a_horizon_before(tmp_path: Path) -> None:
    offset = timedelta(days=-10_000)  # a replayed past
    file = tmp_path / "labels.parquet"
    reader = PredictionLogReader(LogFiles(tmp_path / "log"), (), offset, Labels(file, HORIZON, offset))
    worker = Worker(tmp_path / "log", "canary", offset=offset)
    worker.log(BEGUN, ["a", "b", "c"], [0.9, 0.2, 0.5])
    reader.read(BEGUN)
    assert len(reader.logged(window()).canary.labelled.scores) == 0, "none are known yet"
    known = BEGUN + offset + HORIZON
    moments = [known + timedelta(hours=1), known, known - HORIZON]  # the last is of a prediction long ago
    labels = pd.DataFrame({"user_id": ["a", "b", "c"], "event_timestamp": moments, "churned": [1, 0, 1]})
    labels.to_parquet(file)
    reader.read(BEGUN)
    labelled = reader.logged(window()).canary.labelled
    assert dict(zip(labelled.scores, labelled.churned, strict=True)) == {0.9: 1.0, 0.2: 0.0}


def test_counters_are_differences_and_begin_anew_with_envoy() -> None:
    before = {
        EPOCH: 1.0,
        "canary.requests": 100.0,
        "canary.errors": 5.0,
        "canary.le.10": 90.0,
        "canary.le.20": 100.0,
    }
    after = {
        EPOCH: 1.0,
        "canary.requests": 300.0,
        "canary.errors": 6.0,
        "canary.le.10": 190.0,
        "canary.le.20": 300.0,
    }
    counted = between(before, after, "canary", 10)
    assert (counted.requests, counted.errors, counted.slow) == (200, 1, 100)
    assert counted.latency_ms == {10.0: 100, 20.0: 200, np.inf: 200}
    again = between(before, {**after, EPOCH: 2.0}, "canary", 10)
    assert (again.requests, again.errors, again.slow) == (300, 6, 110)
    # an Envoy started for another objective: the next edge above it
    assert between(before, after, "canary", 15).slow == 0
    assert between(before, before, "canary", 10).p99_ms is None


def test_a_quantile_is_in_its_bucket() -> None:
    latency = {1.0: 0, 2.0: 98, 10.0: 100}
    assert quantile(latency, 0.99) == approx(6.0)
    assert quantile(latency, 0.49) == approx(1.5)
    assert quantile({}, 0.99) is None


def test_both_sources_make_one_evidence(tmp_path: Path) -> None:
    config = RolloutConfig.model_validate({"stages": [{"weight": 100, "max_s": 1}]})
    now = datetime.now(UTC)
    with split(tmp_path) as made:
        observer = LiveObserver(made.gateway, LogFiles(tmp_path / "log"), config)
        shadow = Opened(0, True, now, before=observer.mark())
        made.gateway.set_canary_weight(0, mirror=True)
        for user in range(30):
            made.who(user)
        for variant in ("stable", "canary"):
            Worker(tmp_path / "log", variant).log(now + SECOND, [f"u{n}" for n in range(30)], [0.5] * 30)
        made.gateway.set_canary_weight(100)
        later = now + 2 * SECOND
        full = Opened(100, False, later, before=observer.mark())
        for user in range(20):
            made.who(user)
        # the first window was never closed: its counts end where the next one begins
        evidence = observer.observe([shadow, full], later + SECOND)
    first, second = evidence.windows
    assert (first.stable.requests, first.canary.requests, len(first.pairs)) == (30, 30, 30)
    assert (second.stable.requests, second.canary.requests) == (0, 20)
    assert (second.stable.customers, second.canary.customers) == (0, 0)
    assert second.seconds == 1
    assert second.weight == 100


def test_a_gateway_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    config = RolloutConfig.model_validate({"stages": [{"weight": 100, "max_s": 1}]})
    with split(tmp_path) as made:
        observer = LiveObserver(made.gateway, None, config)
        made.gateway.stop()
        with pytest.raises(ServingError, match="admin API does not answer"):
            observer.mark()

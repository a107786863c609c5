"""Evidence from a cluster's Prometheus: a real HTTP server with raw samples as Prometheus gives them."""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest

from data.errors import ServingError
from handlers import telemetry
from handlers.telemetry import Telemetry, torchserve_metrics
from rollout.config import RolloutConfig, Stage
from rollout.observers.observer import Opened
from rollout.observers.prometheus import METRICS, PrometheusObserver

BEGUN = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEW, OLD = "bbbbbbbbbbbb", "aaaaaaaaaaaa"
CONFIG = RolloutConfig(stages=(Stage(weight=100, max_s=1),))


@dataclass
class Prometheus:
    """Keeps what it scrapes of workers, and answers instant queries for ranges of raw samples."""

    samples: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = field(default_factory=dict)
    queries: list[str] = field(default_factory=list)
    broken: bool = False

    def scrape(self, worker: Telemetry, pod: str, at: datetime) -> None:
        counters, _ = worker.snapshot()
        names = {metric["name"]: metric["dimensions"] for metric in torchserve_metrics()["counter"]}
        for (name, values), value in counters.items():
            labels = dict(zip(names[name], values, strict=True))
            labels |= {"__name__": name, "namespace": "churn", "pod": pod}
            self.samples.setdefault(tuple(sorted(labels.items())), []).append((at.timestamp(), value))

    def answer(self, form: Mapping[str, list[str]]) -> Any:
        (query,) = form["query"]
        self.queries.append(query)
        if query == "vector(1)":
            return [{"metric": {}, "value": [0, "1"]}]
        asked = re.fullmatch(r'\{__name__=~"([^"]+)",namespace="(\w+)"\}\[(\d+)s\]', query)
        assert asked is not None, query
        end = float(form["time"][0])
        found = []
        for key, samples in self.samples.items():
            labels = dict(key)
            if not re.fullmatch(asked[1], labels["__name__"]) or labels["namespace"] != asked[2]:
                continue
            inside = [[at, repr(value)] for at, value in samples if end - int(asked[3]) < at <= end]
            if inside:
                found.append({"metric": labels, "values": inside})
        return found


@pytest.fixture
def prometheus() -> Iterator[tuple[Prometheus, str]]:
    kept = Prometheus()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            if kept.broken:
                content: Any = {"status": "error", "error": "query timed out"}
            else:
                content = {"status": "success", "data": {"resultType": "matrix", "result": kept.answer(form)}}
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield kept, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def answered(worker: Telemetry, scores: list[float], seconds: float = 0.01, status: str = "200") -> None:
    """As the handler counts a request for these customers."""
    worker.observe(telemetry.LATENCY, seconds)
    worker.add(telemetry.REQUESTS, "v1", status)
    if status == "200":
        risky = sum(score > 0.5 for score in scores)
        worker.add(telemetry.PREDICTIONS, "High Risk", times=risky)
        worker.add(telemetry.PREDICTIONS, "Low Risk", times=len(scores) - risky)
        worker.add(telemetry.VECTORS, "ok", times=len(scores))
        worker.observe_all(telemetry.SCORE, scores)


def at(seconds: float) -> datetime:
    return BEGUN + timedelta(seconds=seconds)


def opened(weight: int = 10, begin: float = 0, end: float | None = None) -> Opened:
    return Opened(weight, False, at(begin), None if end is None else at(end))


def test_what_each_version_did_in_a_window_is_counted_to_the_request(
    prometheus: tuple[Prometheus, str],
) -> None:
    kept, url = prometheus
    old, new = Telemetry(OLD, "stable"), Telemetry(NEW, "stable")
    for _ in range(7):  # before the window
        answered(old, [0.1])
    kept.scrape(old, "p1", at(-10))
    for n in range(100):
        answered(old, [0.1, 0.9], seconds=0.3 if n < 5 else 0.01)
    for n in range(40):
        answered(new, [0.32], status="500" if n < 3 else "200")
    new.add(telemetry.VECTORS, "stale", times=4)
    for moment in (20, 35):
        kept.scrape(old, "p1", at(moment))
        kept.scrape(new, "p2", at(moment))

    observer = PrometheusObserver(url, "churn", NEW, CONFIG)
    (window,) = observer.observe([opened()], at(40)).windows
    stable, canary = window.stable, window.canary
    assert (stable.requests, stable.errors, stable.slow, stable.customers) == (100, 0, 5, 200)
    assert (canary.requests, canary.errors, canary.customers, canary.stale) == (40, 3, 37, 4)
    assert (stable.high_risk, canary.high_risk) == (100, 0)
    assert sorted(set(stable.scores.round(3))) == [0.075, 0.875]
    assert len(stable.scores) == 200 and len(canary.scores) == 37
    assert np.allclose(canary.scores, 0.325)
    assert stable.latency_ms[250.0] == 95 and max(stable.latency_ms.values()) == 100
    assert stable.p99_ms is not None and 250 < stable.p99_ms <= 1000


def test_pods_that_come_go_and_begin_anew_lose_nothing(prometheus: tuple[Prometheus, str]) -> None:
    kept, url = prometheus
    first, second = Telemetry(OLD), Telemetry(OLD)
    for _ in range(50):
        answered(first, [0.2])
    kept.scrape(first, "p1", at(-5))
    for _ in range(10):
        answered(first, [0.2])
    kept.scrape(first, "p1", at(10))  # its last: 10 more, then it is gone
    for _ in range(4):
        answered(second, [0.2])
    kept.scrape(second, "p2", at(20))  # fresh: 4
    reborn = Telemetry(OLD)
    for _ in range(3):
        answered(reborn, [0.2])
    kept.scrape(reborn, "p2", at(30))  # the same pod's worker, from 0 again: 3
    (window,) = PrometheusObserver(url, "churn", NEW, CONFIG).observe([opened()], at(35)).windows
    assert (window.stable.requests, window.canary.requests) == (17, 0)


def test_windows_do_not_count_each_other_s_requests(prometheus: tuple[Prometheus, str]) -> None:
    kept, url = prometheus
    new = Telemetry(NEW)
    for moment in range(10, 130, 10):
        answered(new, [0.2])
        kept.scrape(new, "p", at(moment))
    windows = [opened(1, 0, 55), opened(5, 55, None)]
    evidence = PrometheusObserver(url, "churn", NEW, CONFIG).observe(windows, at(125))
    assert [window.canary.requests for window in evidence.windows] == [5, 7]
    assert [window.weight for window in evidence.windows] == [1, 5]


def test_the_scores_of_a_window_only_grow_at_their_end(prometheus: tuple[Prometheus, str]) -> None:
    """An always-valid test may look as often as it likes, but not at a past that changes."""
    kept, url = prometheus
    new, looks = Telemetry(NEW), []
    for moment in range(10, 60, 10):
        answered(new, [float(x) for x in np.random.default_rng(moment).random(20)])
        kept.scrape(new, "p", at(moment))
        observer = PrometheusObserver(url, "churn", NEW, CONFIG)
        looks.append(observer.observe([opened()], at(moment + 1)).windows[0].canary.scores)
    for before, after in pairwise(looks):
        assert len(after) == len(before) + 20
        assert (after[: len(before)] == before).all()
    assert (np.diff(looks[0]) < 0).any(), "not in the order of size"


def test_a_window_that_is_over_is_not_asked_for_again(prometheus: tuple[Prometheus, str]) -> None:
    kept, url = prometheus
    new = Telemetry(NEW)
    for moment in range(10, 400, 10):
        answered(new, [0.2])
        kept.scrape(new, "p", at(moment))
    observer = PrometheusObserver(url, "churn", NEW, CONFIG)
    first = observer.observe([opened(1, 0, 100), opened(5, 100)], at(390))
    asked = len(kept.queries)
    assert observer.observe([opened(1, 0, 100), opened(5, 100)], at(391)).windows[0] is first.windows[0]
    assert len(kept.queries) == asked + 1


def test_nobody_who_scrapes_is_no_evidence_and_not_a_healthy_canary(
    prometheus: tuple[Prometheus, str],
) -> None:
    kept, url = prometheus
    observer = PrometheusObserver(url, "churn", NEW, CONFIG)
    with pytest.raises(ServingError, match=r"no sample of a worker in churn within 120 s .*ServiceMonitor"):
        observer.observe([opened()], at(10))
    kept.scrape(Telemetry(OLD), "p", at(5))
    assert observer.observe([opened()], at(100)).windows[0].stable.requests == 0
    with pytest.raises(ServingError, match="no sample of a worker"):
        observer.observe([opened()], at(200))


def test_a_prometheus_that_cannot_be_asked_is_said(prometheus: tuple[Prometheus, str]) -> None:
    kept, url = prometheus
    observer = PrometheusObserver(url, "churn", NEW, CONFIG)
    assert observer.mark() == {}
    kept.broken = True
    with pytest.raises(ServingError, match="query timed out"):
        observer.mark()
    with pytest.raises(ServingError, match=r"rollout\.kserve\.prometheus_url\): does not answer"):
        PrometheusObserver("http://127.0.0.1:9", "churn", NEW, CONFIG).mark()


def test_its_metrics_are_the_handler_s() -> None:
    assert set(METRICS) <= {metric["name"] for metric in torchserve_metrics()["counter"]}

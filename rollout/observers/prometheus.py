"""What a cluster's Prometheus has scraped from the workers (handlers/telemetry.py), by model version.

Raw samples are added up here, not by `increase`, which extrapolates: tests count whole requests. A counter
that falls began anew, and a series that appears in a window began at 0: pods come and go with the weights.

There are no pairs, no outcomes and no segments here, and scores are the middles of their buckets: alike for
both versions. A request that reached no handler is not counted; a canary without pods is the target's to see.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import numpy as np

from data.errors import ServingError
from handlers import telemetry
from rollout.config import Latency, RolloutConfig
from rollout.counts import quantile
from rollout.evidence import Arm, Evidence, Floats, Window
from rollout.observers.observer import Opened

LOOKBACK = timedelta(minutes=5)
"""Before a window, for what a counter stood at when it began."""
SILENT = timedelta(minutes=2)
"""Without any sample for so long, nobody scrapes: that is no evidence of anything."""
TIMEOUT_S = 10.0
SCORES = f"{telemetry.SCORE.name}_bucket"
LATENCY = f"{telemetry.LATENCY.name}_bucket"
METRICS = (telemetry.REQUESTS.name, telemetry.PREDICTIONS.name, telemetry.VECTORS.name, LATENCY, SCORES)


@dataclass(frozen=True)
class Series:
    name: str
    labels: Mapping[str, str]
    samples: tuple[tuple[float, float], ...]
    """Unix seconds and the counter, in the order of time."""

    def steps(self, begin: float, end: float) -> Iterator[tuple[float, float]]:
        """When the counter grew after `begin` and until `end`, and by how much."""
        before = 0.0
        for at, value in self.samples:
            if at > end:
                return
            if at > begin and (grown := value - before if value >= before else value):
                yield at, grown
            before = value

    def grown(self, begin: float, end: float) -> int:
        return round(sum(step for _, step in self.steps(begin, end)))


class PrometheusObserver:
    """`version`: of the candidate; every other one is stable. `namespace`: where the pods run."""

    def __init__(self, url: str, namespace: str, version: str, config: RolloutConfig) -> None:
        self._url, self._namespace, self._version = url.rstrip("/"), namespace, version
        self._objective_ms = (config.rules.latency or Latency()).objective_ms
        self._closed: dict[tuple[datetime, datetime], Window] = {}

    def mark(self) -> dict[str, float]:
        """Nothing is to be kept: Prometheus does. Raises ServingError when it does not answer."""
        self._ask("vector(1)", None)
        return {}

    def observe(self, windows: Sequence[Opened], now: datetime) -> Evidence:
        """Raises ServingError when Prometheus does not answer, or scrapes no worker any more."""
        return Evidence(tuple(self._window(window, now) for window in windows))

    def _window(self, opened: Opened, now: datetime) -> Window:
        end = opened.ended or now
        known = self._closed.get((opened.begun, end))
        if known is not None:
            return known
        series = self._read(opened.begun - LOOKBACK, end)
        self._refuse_silence(series, end)
        begin, until = opened.begun.timestamp(), end.timestamp()
        canary = [one for one in series if one.labels.get("model_version") == self._version]
        stable = [one for one in series if one.labels.get("model_version") != self._version]
        window = Window(
            opened.weight,
            opened.mirror,
            (end - opened.begun).total_seconds(),
            stable=arm(stable, begin, until, self._objective_ms),
            canary=arm(canary, begin, until, self._objective_ms),
        )
        if opened.ended is not None and now - opened.ended > SILENT:
            self._closed[opened.begun, end] = window
        return window

    def _read(self, begin: datetime, end: datetime) -> list[Series]:
        span = max(1, math.ceil((end - begin).total_seconds()))
        names = "|".join(METRICS)
        selector = f'{{__name__=~"{names}",namespace="{self._namespace}"}}[{span}s]'
        return [
            Series(
                found["metric"]["__name__"],
                found["metric"],
                tuple(
                    (float(at), float(value)) for at, value in found["values"] if math.isfinite(float(value))
                ),
            )
            for found in self._ask(selector, end)
        ]

    def _refuse_silence(self, series: Sequence[Series], end: datetime) -> None:
        newest = max((one.samples[-1][0] for one in series if one.samples), default=-math.inf)
        if newest < (end - SILENT).timestamp():
            raise ServingError(
                f"{self._url} (rollout.kserve.prometheus_url): no sample of a worker in {self._namespace}"
                f" within {SILENT.total_seconds():g} s of {end:%H:%M:%S}; look at the ServiceMonitor"
            )

    def _ask(self, query: str, at: datetime | None) -> list[Any]:
        asked = {"query": query} | ({} if at is None else {"time": f"{at.timestamp():.3f}"})
        try:
            answer = httpx.post(f"{self._url}/api/v1/query", data=asked, timeout=TIMEOUT_S, trust_env=False)
            content = answer.json()
            if content["status"] != "success":
                raise ServingError(f"{self._url} (rollout.kserve.prometheus_url): {content.get('error')}")
            return list(content["data"]["result"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise ServingError(
                f"{self._url} (rollout.kserve.prometheus_url): does not answer as Prometheus does: {error}"
            ) from None


def arm(series: Sequence[Series], begin: float, end: float, objective_ms: float) -> Arm:
    """Of one version's series."""

    def count(name: str, label: str = "", *values: str) -> int:
        return sum(
            one.grown(begin, end)
            for one in series
            if one.name == name and (not values or one.labels.get(label) in values)
        )

    latency = _latency(series, begin, end)
    measured = latency.get(math.inf, 0)
    fast = next((latency[edge] for edge in sorted(latency) if edge >= objective_ms), measured)
    requests = count(telemetry.REQUESTS.name)
    failed = {one.labels["code"] for one in series if one.labels.get("code", "").startswith("5")}
    vectors = telemetry.VECTORS.name
    customers = count(telemetry.PREDICTIONS.name)
    return Arm(
        requests=requests,
        errors=count(telemetry.REQUESTS.name, "code", *failed) if failed else 0,
        slow=min(requests, measured - fast),
        p99_ms=quantile(latency, 0.99),
        latency_ms=latency if measured else {},
        customers=customers,
        missing=min(customers, count(vectors, "status", "unknown")),
        stale=min(customers, count(vectors, "status", "stale")),
        degraded=min(customers, count(vectors, "status", "degraded")),
        high_risk=min(customers, count(telemetry.PREDICTIONS.name, "decision", "High Risk")),
        scores=_scores(series, begin, end),
    )


def _latency(series: Sequence[Series], begin: float, end: float) -> dict[float, int]:
    """Edge in ms -> requests that took at most so long."""
    found: dict[float, int] = {}
    for one in series:
        if one.name == LATENCY:
            edge = 1000 * float(one.labels["le"])
            found[edge] = found.get(edge, 0) + one.grown(begin, end)
    return dict(sorted(found.items()))


def _scores(series: Sequence[Series], begin: float, end: float) -> Floats:
    """Middles of buckets in the order of scrapes; within one scrape in an order that says nothing."""
    at: dict[float, dict[float, float]] = {}
    for one in series:
        if one.name == SCORES:
            for moment, step in one.steps(begin, end):
                edges = at.setdefault(moment, {})
                edge = float(one.labels["le"])
                edges[edge] = edges.get(edge, 0.0) + step
    bounds = (0.0, *telemetry.SCORE.buckets, 1.0)
    middles = np.array([(low + high) / 2 for low, high in pairwise(bounds)])
    parts = []
    for moment in sorted(at):
        # a bucket that did not grow at this scrape has what the one below it has
        total, counts = 0.0, []
        for edge in (*telemetry.SCORE.buckets, math.inf):
            total = max(total, at[moment].get(edge, total))
            counts.append(total)
        inside = np.diff(np.array([0.0, *counts])).round().astype(int)
        scores = np.repeat(middles, inside)
        np.random.default_rng(int(moment * 1000)).shuffle(scores)
        parts.append(scores)
    return np.concatenate(parts) if parts else np.empty(0)

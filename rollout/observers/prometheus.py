"""Evidence on a cluster, from Prometheus: metrics of the workers (handlers/telemetry.py) and of their
gateway.

Workers count predictions, statuses and scores. They cannot count requests that never reached a handler: a
full queue, a time-out at the gateway, a killed pod. With `prometheus.gateway`, requests, errors and latencies
are those that Istio, Knative's queue-proxy or Envoy counted for the workloads of each version.

There are no pairs, outcomes or segments here. Scores are the middles of their buckets, in the same way for
both versions. Each request is assigned to a variant independently, so that customers need not be known.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np

from core.errors import ServingError
from handlers import telemetry
from rollout.config import RolloutConfig
from rollout.counts import quantile
from rollout.evidence import Arm, Evidence, Floats, Window
from rollout.observers.gateways import Family, blind, gateway, seen_by_the_gateway
from rollout.observers.observer import Opened
from rollout.observers.series import (
    NAME,
    Counter,
    PrometheusClient,
    Series,
    histogram,
    slower,
    summed,
)
from rollout.rules.latency import Latency

SILENT = timedelta(minutes=2)
"""Without a sample for so long, the workers are not scraped any more, and there is no evidence."""
BLIND_AFTER = 50
"""From so many requests to workers on, the gateway must have counted some."""
SCORES = f"{telemetry.SCORE.name}_bucket"
LATENCY = f"{telemetry.LATENCY.name}_bucket"
METRICS = (
    telemetry.REQUESTS.name,
    telemetry.PREDICTIONS.name,
    telemetry.VECTORS.name,
    telemetry.PROBES.name,
    LATENCY,
    SCORES,
)


class PrometheusObserver:
    """`version`: of the candidate; all others are stable. Raises ConfigError where the CA file is missing."""

    def __init__(self, url: str, version: str, config: RolloutConfig) -> None:
        kserve = config.kserve
        self._url, self._version, self._kserve = url, version, kserve
        self._objective_ms = (config.rules.latency or Latency()).objective_ms
        self._client = PrometheusClient(url, kserve.prometheus)
        self._workers = Series(self._client, worker_selector(config))
        kind = kserve.prometheus.gateway
        self._family = family = gateway(kind, kserve.namespace) if kind else None
        self._gateway = None if family is None else Series(self._client, gateway_selector(config, family))

    def mark(self) -> dict[str, float]:
        """{}, since Prometheus stores the counters. Raises ServingError when it does not answer."""
        self._client.query("vector(1)")
        return {}

    def observe(self, windows: Sequence[Opened], now: datetime) -> Evidence:
        """Raises ServingError when Prometheus does not answer, has no recent sample, or scrapes workers
        twice."""
        self._workers.read(windows, now)
        self._refuse_silence(now)
        self._refuse_doubles()
        if self._gateway is not None:
            self._gateway.read(windows, now)
            self._refuse_blindness()
        return Evidence(tuple(self._window(number, one, now) for number, one in enumerate(windows)))

    def _window(self, number: int, opened: Opened, now: datetime) -> Window:
        def known(canary: bool) -> Arm:
            mine = self._of(canary)
            seen = worker_arm(mine, number, self._objective_ms)
            if self._gateway is None or self._family is None:
                return seen
            counters = self._gateway.counters
            return seen_by_the_gateway(seen, self._family, counters, mine, number, self._objective_ms)

        seconds = ((opened.ended or now) - opened.begun).total_seconds()
        return Window(opened.weight, opened.mirror, seconds, stable=known(False), canary=known(True))

    def _of(self, canary: bool) -> list[Counter]:
        """The workers' series of one version."""
        return [
            one
            for one in self._workers.counters
            if (one.labels.get("model_version") == self._version) is canary
        ]

    def _refuse_silence(self, now: datetime) -> None:
        if self._workers.newest < (now - SILENT).timestamp():
            raise ServingError(
                f"{self._url} ({NAME}): no sample of a worker of {self._kserve.name} in"
                f" {self._kserve.namespace} within {SILENT.total_seconds():g} s of {now:%H:%M:%S}; look at"
                " the ServiceMonitor, and at rollout.kserve.prometheus.job and service_label"
            )

    def _refuse_blindness(self) -> None:
        """Where the gateway counts nothing of a version, it would not be judged until the stage's time is
        over."""
        assert self._gateway is not None and self._family is not None
        for canary in (False, True):
            complaint = blind(self._family, self._gateway.counters, self._of(canary), BLIND_AFTER)
            if complaint is not None:
                raise ServingError(f"{self._url} ({NAME}): the gateway {complaint}")

    def _refuse_doubles(self) -> None:
        """Two jobs that scrape one pod count each request twice, which squares the e-values."""
        jobs = sorted({one.labels.get("job", "") for one in self._workers.counters})
        if len(jobs) > 1:
            raise ServingError(
                f"{self._url} ({NAME}): workers of {self._kserve.name} are scraped by {len(jobs)} jobs"
                f" ({', '.join(jobs)}), which would count each request several times; name one in"
                " rollout.kserve.prometheus.job"
            )


def worker_selector(config: RolloutConfig) -> str:
    kserve, prometheus = config.kserve, config.kserve.prometheus
    matchers = {"namespace": kserve.namespace, prometheus.service_label: kserve.name}
    if prometheus.job is not None:
        matchers["job"] = prometheus.job
    return _selector("|".join(METRICS), matchers)


def gateway_selector(config: RolloutConfig, family: Family) -> str:
    matchers = {family.namespace: config.kserve.namespace} if family.namespace else {}
    if config.kserve.prometheus.gateway_job is not None:
        matchers["job"] = config.kserve.prometheus.gateway_job
    return _selector("|".join(family.names), matchers, family.fixed)


def _selector(names: str, matchers: Mapping[str, str], more: str = "") -> str:
    quoted = "".join(f',{label}="{_escaped(value)}"' for label, value in matchers.items())
    return f'{{__name__=~"{names}"{quoted}{more}}}'


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def worker_arm(series: Sequence[Counter], window: int, objective_ms: float) -> Arm:
    """The counts of one version's series in a window."""

    def count(name: str, label: str = "", *values: str) -> int:
        chosen = [one for one in series if not values or one.labels.get(label) in values]
        return summed(chosen, window, name)

    latency = histogram(series, window, LATENCY, 1000.0)
    requests, customers = count(telemetry.REQUESTS.name), count(telemetry.PREDICTIONS.name)
    failed = {one.labels["code"] for one in series if one.labels.get("code", "").startswith("5")}
    vectors = telemetry.VECTORS.name
    return Arm(
        requests=requests,
        errors=count(telemetry.REQUESTS.name, "code", *failed) if failed else 0,
        slow=min(requests, slower(latency, objective_ms)),
        p99_ms=quantile(latency, 0.99),
        latency_ms=latency,
        customers=customers,
        missing=min(customers, count(vectors, "status", "unknown")),
        stale=min(customers, count(vectors, "status", "stale")),
        degraded=min(customers, count(vectors, "status", "degraded")),
        high_risk=min(customers, count(telemetry.PREDICTIONS.name, "decision", "High Risk")),
        scores=_scores(series, window),
    )


def _scores(series: Sequence[Counter], window: int) -> Floats:
    """The middle of its bucket for each score."""
    at_most = histogram(series, window, SCORES, 1.0)
    bounds = (0.0, *telemetry.SCORE.buckets, 1.0)
    middles = np.array([(low + high) / 2 for low, high in pairwise(bounds)])
    cumulative = [at_most.get(edge, 0) for edge in (*telemetry.SCORE.buckets, math.inf)]
    return np.repeat(middles, np.maximum(np.diff(cumulative, prepend=0), 0))

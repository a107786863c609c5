"""What a cluster's Prometheus has scraped: workers (handlers/telemetry.py), and what stands before them.

Workers say of whom and how they predicted. What never reached a handler (a queue that is full, a time-out at
the gateway, a pod that was killed) they cannot say: with `prometheus.gateway` requests, errors and latencies
are those that Istio, Knative's queue-proxy or Envoy counted for the workloads of either version.

There are no pairs, no outcomes and no segments here, and scores are the middles of their buckets: alike for
both versions. Requests are dealt anew each time, so that customers need not be known.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np

from data.errors import ServingError
from handlers import telemetry
from rollout.config import Latency, RolloutConfig
from rollout.counts import quantile
from rollout.evidence import Arm, Evidence, Floats, Window
from rollout.observers.observer import Opened
from rollout.observers.series import NAME, Counter, Labels, PrometheusClient, Series

SILENT = timedelta(minutes=2)
"""Without any sample for so long, nobody scrapes: that is no evidence of anything."""
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


@dataclass(frozen=True)
class Family:
    """Names of what one kind of gateway counts."""

    requests: str
    latency: str
    """A histogram in milliseconds."""
    code: str
    namespace: str
    workload: str
    fixed: str = ""
    suffix: str = ""
    """Of a Deployment's name, that the label does not have."""


GATEWAYS = {
    "istio": Family(
        "istio_requests_total",
        "istio_request_duration_milliseconds_bucket",
        "response_code",
        "destination_workload_namespace",
        "destination_workload",
        fixed=',reporter="source"',
    ),
    "queue-proxy": Family(
        "revision_request_count",
        "revision_request_latencies_bucket",
        "response_code",
        "namespace_name",
        "revision_name",
        suffix="-deployment",
    ),
    "envoy": Family(
        "envoy_cluster_upstream_rq",
        "envoy_cluster_upstream_rq_time_bucket",
        "envoy_response_code",
        "",
        "envoy_cluster_name",
    ),
}


class PrometheusObserver:
    """`version`: of the candidate; every other one is stable. Raises ConfigError for a CA that is missing."""

    def __init__(self, url: str, version: str, config: RolloutConfig) -> None:
        kserve = config.kserve
        self._url, self._version, self._kserve = url, version, kserve
        self._objective_ms = (config.rules.latency or Latency()).objective_ms
        self._client = PrometheusClient(url, kserve.prometheus)
        self._workers = Series(self._client, worker_selector(config))
        family = GATEWAYS[kserve.prometheus.gateway] if kserve.prometheus.gateway else None
        self._family = family
        self._gateway = None if family is None else Series(self._client, gateway_selector(config, family))

    def mark(self) -> dict[str, float]:
        """Nothing is saved here: Prometheus does that. Raises ServingError when it does not answer."""
        self._client.query("vector(1)")
        return {}

    def observe(self, windows: Sequence[Opened], now: datetime) -> Evidence:
        """Raises ServingError when Prometheus does not answer, or scrapes no worker any more, or twice."""
        self._workers.read(windows, now)
        self._refuse_silence(now)
        self._refuse_doubles()
        if self._gateway is not None:
            self._gateway.read(windows, now)
        return Evidence(tuple(self._window(number, one, now) for number, one in enumerate(windows)))

    def _window(self, number: int, opened: Opened, now: datetime) -> Window:
        def known(canary: bool) -> Arm:
            mine = [one for one in self._workers.counters if (self._is_canary(one.labels)) is canary]
            seen = worker_arm(mine, number, self._objective_ms)
            if self._gateway is None or self._family is None:
                return seen
            probes = _sum(mine, number, telemetry.PROBES.name)
            return self._seen_by_the_gateway(seen, canary, number, probes)

        seconds = ((opened.ended or now) - opened.begun).total_seconds()
        return Window(opened.weight, opened.mirror, seconds, stable=known(False), canary=known(True))

    def _is_canary(self, labels: Labels) -> bool:
        return labels.get("model_version") == self._version

    def _seen_by_the_gateway(self, seen: Arm, canary: bool, number: int, probes: int) -> Arm:
        """Its requests, errors and latencies, without our own questions, which it counts like all others."""
        assert self._gateway is not None and self._family is not None
        family, workloads = self._family, self._workloads(canary)
        mine = [
            one for one in self._gateway.counters if _is_of(one.labels[family.workload], workloads, family)
        ]
        asked = [one for one in mine if one.labels["__name__"] == family.requests]
        errors = sum(one.grown.get(number, 0.0) for one in asked if _failed(one.labels.get(family.code, "")))
        latency = _histogram(mine, number, family.latency, 1.0)
        requests = max(0, _sum(asked, number, family.requests) - probes)
        return replace(
            seen,
            requests=requests,
            errors=min(requests, round(errors)),
            slow=min(requests, _slow(latency, self._objective_ms)),
            p99_ms=quantile(latency, 0.99),
            latency_ms=latency,
        )

    def _workloads(self, canary: bool) -> set[str]:
        """Deployments of the pods that said so of themselves: a pod is `<Deployment>-<hash>-<hash>`."""
        pods = {
            one.labels["pod"]
            for one in self._workers.counters
            if "pod" in one.labels and self._is_canary(one.labels) is canary
        }
        return {pod.rsplit("-", 2)[0] for pod in pods if pod.count("-") >= 2}

    def _refuse_silence(self, now: datetime) -> None:
        if self._workers.newest < (now - SILENT).timestamp():
            raise ServingError(
                f"{self._url} ({NAME}): no sample of a worker of {self._kserve.name} in"
                f" {self._kserve.namespace} within {SILENT.total_seconds():g} s of {now:%H:%M:%S}; look at"
                " the ServiceMonitor, and at rollout.kserve.prometheus.job and service_label"
            )

    def _refuse_doubles(self) -> None:
        """Two jobs that scrape one pod count each request twice, and square the evidence."""
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
    return _selector(f"{family.requests}|{family.latency}", matchers, family.fixed)


def _selector(names: str, matchers: Mapping[str, str], more: str = "") -> str:
    quoted = "".join(f',{label}="{_escaped(value)}"' for label, value in matchers.items())
    return f'{{__name__=~"{names}"{quoted}{more}}}'


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _is_of(label: str, workloads: set[str], family: Family) -> bool:
    if family.namespace:
        return any(label == workload.removesuffix(family.suffix) for workload in workloads)
    return any(workload in label for workload in workloads)


def _failed(code: str) -> bool:
    return code.startswith("5") or code == "0"  # Istio: cut before there was a status


def worker_arm(series: Sequence[Counter], window: int, objective_ms: float) -> Arm:
    """Of one version's series."""

    def count(name: str, label: str = "", *values: str) -> int:
        chosen = [one for one in series if not values or one.labels.get(label) in values]
        return _sum(chosen, window, name)

    latency = _histogram(series, window, LATENCY, 1000.0)
    requests, customers = count(telemetry.REQUESTS.name), count(telemetry.PREDICTIONS.name)
    failed = {one.labels["code"] for one in series if one.labels.get("code", "").startswith("5")}
    vectors = telemetry.VECTORS.name
    return Arm(
        requests=requests,
        errors=count(telemetry.REQUESTS.name, "code", *failed) if failed else 0,
        slow=min(requests, _slow(latency, objective_ms)),
        p99_ms=quantile(latency, 0.99),
        latency_ms=latency,
        customers=customers,
        missing=min(customers, count(vectors, "status", "unknown")),
        stale=min(customers, count(vectors, "status", "stale")),
        degraded=min(customers, count(vectors, "status", "degraded")),
        high_risk=min(customers, count(telemetry.PREDICTIONS.name, "decision", "High Risk")),
        scores=_scores(series, window),
    )


def _sum(series: Sequence[Counter], window: int, name: str) -> int:
    return round(sum(one.grown.get(window, 0.0) for one in series if one.labels["__name__"] == name))


def _slow(latency: Mapping[float, int], objective_ms: float) -> int:
    measured = max(latency.values(), default=0)
    return measured - next((n for edge, n in sorted(latency.items()) if edge >= objective_ms), measured)


def _histogram(series: Sequence[Counter], window: int, name: str, to_ms: float) -> dict[float, int]:
    """Edge in ms -> requests that took at most so long; {} of nothing."""
    found: dict[float, float] = {}
    for one in series:
        if one.labels["__name__"] == name:
            edge = to_ms * float(one.labels["le"])
            found[edge] = found.get(edge, 0.0) + one.grown.get(window, 0.0)
    # a scrape that fell between two lines of one histogram would make it fall along its edges
    edges = sorted(found)
    counts = np.maximum.accumulate(np.array([round(found[edge]) for edge in edges], dtype=np.int64))
    return dict(zip(edges, map(int, counts), strict=True)) if counts.any() else {}


def _scores(series: Sequence[Counter], window: int) -> Floats:
    """Middles of buckets."""
    at_most = _histogram(series, window, SCORES, 1.0)
    bounds = (0.0, *telemetry.SCORE.buckets, 1.0)
    middles = np.array([(low + high) / 2 for low, high in pairwise(bounds)])
    cumulative = [at_most.get(edge, 0) for edge in (*telemetry.SCORE.buckets, math.inf)]
    return np.repeat(middles, np.maximum(np.diff(cumulative, prepend=0), 0))

"""Evidence from a cluster's Prometheus: a real one, that scrapes metrics as the handler writes them."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigError, ServingError
from handlers import telemetry
from handlers.telemetry import Telemetry, torchserve_metrics
from rollout.config import RolloutConfig
from rollout.evidence import Window
from rollout.observers.observer import Opened
from rollout.observers.prometheus import METRICS, PrometheusObserver, worker_selector
from rollout.observers.series import PrometheusClient, Series

from support.servers.real_prometheus import Exporters, Job, exporters, needs_prometheus, prometheus  # isort: skip

NEW, OLD = "bbbbbbbbbbbb", "aaaaaaaaaaaa"
STABLE_POD, CANARY_POD = "churn-predictor-00001-deployment-5d-x1", "churn-predictor-00002-deployment-7f-x2"
HERE = ("churn", "churn")
TEST = "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay"
"""bcrypt of `test`, from Prometheus' documentation."""


def config(**of_prometheus: object) -> RolloutConfig:
    return RolloutConfig.model_validate(
        {"stages": [{"weight": 100, "max_s": 1}], "kserve": {"prometheus": of_prometheus}}
    )


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


@pytest.fixture
def pods() -> Iterator[Exporters]:
    with exporters() as made:
        yield made


def seen(url: str, windows: list[Opened], settings: RolloutConfig | None = None) -> tuple[Window, ...]:
    observer = PrometheusObserver(url, NEW, settings or config())
    return observer.observe(windows, datetime.now(UTC)).windows


def both_versions(pods: Exporters) -> tuple[Telemetry, Telemetry]:
    """Workers of stable and of the canary, as they stand before anything is judged."""
    old, new = Telemetry(OLD, "stable"), Telemetry(NEW, "stable")
    for _ in range(700):
        answered(old, [0.1])
    for worker, pod in ((old, STABLE_POD), (new, CANARY_POD)):
        answered(worker, [0.1])
        pods.worker(pod, worker)
    return old, new


@needs_prometheus
def test_each_version_of_this_service_is_counted_once_and_to_the_request(
    pods: Exporters, tmp_path: Path
) -> None:
    """Beside another service of the namespace, and a Prometheus without a history."""
    old, new = both_versions(pods)
    other = Telemetry(OLD, "stable")
    pods.worker("other", other)
    jobs = [Job("workers", {STABLE_POD: HERE, CANARY_POD: HERE, "other": ("churn", "other")})]
    with prometheus(tmp_path, pods, jobs) as url:
        pods.settle(STABLE_POD, CANARY_POD, "other")
        window = Opened(10, False, datetime.now(UTC))
        for n in range(100):
            answered(old, [0.1, 0.9], seconds=0.3 if n < 5 else 0.01)
            answered(other, [0.5], status="500")
        for n in range(40):
            answered(new, [0.32], status="500" if n < 3 else "200")
        new.add(telemetry.VECTORS, "stale", times=4)
        new.add(telemetry.PROBES, "direct", times=30)
        pods.worker(STABLE_POD, old), pods.worker(CANARY_POD, new), pods.worker("other", other)
        pods.settle(STABLE_POD, CANARY_POD, "other")
        (found,) = seen(url, [window])
        assert worker_selector(config()).endswith(
            ',namespace="churn",serving_kserve_io_inferenceservice="churn"}'
        )
    stable, canary = found.stable, found.canary
    assert (stable.requests, stable.errors, stable.slow, stable.customers) == (100, 0, 5, 200)
    assert (canary.requests, canary.errors, canary.customers, canary.stale) == (40, 3, 37, 4)
    assert (stable.high_risk, canary.high_risk) == (100, 0)
    assert sorted(set(stable.scores.round(3))) == [0.075, 0.875]
    assert len(stable.scores) == 200 and np.allclose(canary.scores, 0.325)
    assert stable.latency_ms[250.0] == 95 and max(stable.latency_ms.values()) == 100


@needs_prometheus
def test_two_jobs_that_scrape_one_pod_are_refused_until_one_is_named(pods: Exporters, tmp_path: Path) -> None:
    old, _ = both_versions(pods)
    both = {STABLE_POD: HERE, CANARY_POD: HERE}
    with prometheus(tmp_path, pods, [Job("kubernetes-pods", both), Job("churn-metrics", both)]) as url:
        pods.settle(STABLE_POD, CANARY_POD)
        window = Opened(10, False, datetime.now(UTC))
        for _ in range(10):
            answered(old, [0.2])
        pods.worker(STABLE_POD, old)
        pods.settle(STABLE_POD, CANARY_POD)
        with pytest.raises(ServingError, match=r"2 jobs \(churn-metrics, kubernetes-pods\).*prometheus\.job"):
            seen(url, [window])
        (found,) = seen(url, [window], config(job="churn-metrics"))
    assert found.stable.requests == 10


@needs_prometheus
def test_looks_read_on_and_windows_do_not_count_each_other_s_requests(
    pods: Exporters, tmp_path: Path
) -> None:
    _, new = both_versions(pods)
    with prometheus(tmp_path, pods, [Job("workers", {STABLE_POD: HERE, CANARY_POD: HERE})]) as url:
        pods.settle(CANARY_POD)
        first = Opened(1, False, datetime.now(UTC))
        observer, windows, totals = PrometheusObserver(url, NEW, config()), [first], []
        for count in (5, 7, 3):
            for _ in range(count):
                answered(new, [0.2])
            pods.worker(CANARY_POD, new)
            pods.settle(CANARY_POD)
            now = datetime.now(UTC)
            totals.append([w.canary.requests for w in observer.observe(windows, now).windows])
            if count == 7:
                windows = [Opened(1, False, first.begun, now), Opened(5, False, now)]
        reborn = Telemetry(NEW, "stable")  # the worker's successor counts from 0 again
        answered(reborn, [0.2])
        pods.worker(CANARY_POD, reborn)
        pods.settle(CANARY_POD)
        totals.append([w.canary.requests for w in observer.observe(windows, datetime.now(UTC)).windows])
        fresh = PrometheusObserver(url, NEW, config()).observe(windows, datetime.now(UTC)).windows
    assert totals == [[5], [12], [12, 3], [12, 4]]
    assert [window.canary.requests for window in fresh] == [12, 4], "another controller sees the same"


Page = dict[tuple[object, ...], float]


def gateway_page(kind: str, requests: int, failed: int) -> Page:
    """Of stable twice as many, none of which failed; of services that are not ours many that did."""
    found: Page = {}
    stable, canary = "churn-predictor-00001", "churn-predictor-00002"
    requests_name, latency, code, to_ms = COUNTED[kind]
    for namespace, name, count, errors in (
        ("churn", stable, 2 * requests, 0),
        ("churn", canary, requests, failed),
        ("churn", f"else-{canary}", 9 * requests, requests),
        ("churn-staging", canary, 9 * requests, requests),
    ):
        labels = NAMES[kind](namespace, name)
        found[(requests_name, *labels, (code, "200"))] = count - errors
        found[(requests_name, *labels, (code, "503"))] = errors
        for edge, within in ((25.0, count - 1), (1000.0, count), (float("inf"), count)):
            found[(latency, *labels, ("le", f"{edge / to_ms:g}".replace("inf", "+Inf")))] = max(within, 0)
    return found


NAMES = {
    "istio": lambda namespace, name: (
        ("destination_workload", f"{name}-deployment"),
        ("destination_workload_namespace", namespace),
        ("reporter", "source"),
    ),
    "queue-proxy": lambda namespace, name: (("revision_name", name), ("namespace_name", namespace)),
    "queue-proxy-otel": lambda namespace, name: (
        ("pod", f"{name}-deployment-5d-q1"),
        ("namespace", namespace),
    ),
    "envoy": lambda namespace, name: (("envoy_cluster_name", f"{namespace}/{name}/80/da39a3ee5e"),),
}
"""Namespace and Revision -> the labels that name it."""
COUNTED = {
    "istio": ("istio_requests_total", "istio_request_duration_milliseconds_bucket", "response_code", 1.0),
    "queue-proxy": ("revision_request_count", "revision_request_latencies_bucket", "response_code", 1.0),
    "queue-proxy-otel": (
        "kn_serving_invocation_duration_seconds_count",
        "kn_serving_invocation_duration_seconds_bucket",
        "http_response_status_code",
        1000.0,
    ),
    "envoy": (
        "envoy_cluster_upstream_rq",
        "envoy_cluster_upstream_rq_time_bucket",
        "envoy_response_code",
        1.0,
    ),
}
MESH = [
    Job("workers", {STABLE_POD: HERE, CANARY_POD: HERE}),
    Job("mesh", dict.fromkeys(COUNTED, ("gateways", "")), honor_labels=True),
]


@needs_prometheus
def test_a_gateway_counts_what_never_reached_a_handler(pods: Exporters, tmp_path: Path) -> None:
    _, new = both_versions(pods)
    for kind in COUNTED:
        pods.page(kind, gateway_page(kind, 0, 0))
    with prometheus(tmp_path, pods, MESH) as url:
        pods.settle(CANARY_POD, *COUNTED)
        window = Opened(10, False, datetime.now(UTC))
        for _ in range(40):
            answered(new, [0.3])  # the handler saw no error at all
        new.add(telemetry.PROBES, "gateway", times=2)
        new.add(telemetry.PROBES, "direct", times=30)  # a kubelet's, or Envoy's own: no gateway counts them
        pods.worker(CANARY_POD, new)
        for kind in COUNTED:
            pods.page(kind, gateway_page(kind, 52, 10))
        pods.settle(CANARY_POD, *COUNTED)
        for kind in COUNTED:
            (found,) = seen(url, [window], config(gateway=kind))
            canary, stable = found.canary, found.stable
            assert (canary.requests, canary.errors) == (50, 10), f"{kind}: without our own two questions"
            assert (stable.requests, stable.errors, stable.latency_ms[25.0]) == (104, 0, 103), kind
            assert canary.customers == 40, "only the handler counts scored customers"
        (plain,) = seen(url, [window])
    assert (plain.canary.requests, plain.canary.errors) == (40, 0)


@needs_prometheus
def test_a_failure_that_a_gateway_hid_by_asking_again_is_one(pods: Exporters, tmp_path: Path) -> None:
    """Envoy counts retries that succeeded; with Istio only the handler counts the failure."""
    _, new = both_versions(pods)
    hidden = ("envoy_cluster_upstream_rq_retry_success", *NAMES["envoy"]("churn", "churn-predictor-00002"))
    pods.page("envoy", {**gateway_page("envoy", 0, 0), hidden: 0})
    pods.page("istio", gateway_page("istio", 0, 0))
    with prometheus(tmp_path, pods, MESH) as url:
        pods.settle(CANARY_POD, "envoy", "istio")
        window = Opened(10, False, datetime.now(UTC))
        for n in range(60):
            answered(new, [0.3], status="503" if n < 4 else "200")
        pods.worker(CANARY_POD, new)
        pods.page("envoy", {**gateway_page("envoy", 70, 0), hidden: 7})
        pods.page("istio", gateway_page("istio", 70, 0))
        pods.settle(CANARY_POD, "envoy", "istio")
        errors = {kind: seen(url, [window], config(gateway=kind))[0].canary.errors for kind in COUNTED
                  if kind in ("envoy", "istio")}  # fmt: skip
    assert errors == {"envoy": 7, "istio": 4}


@needs_prometheus
def test_a_gateway_that_cannot_separate_the_versions_is_refused(pods: Exporters, tmp_path: Path) -> None:
    """Envoy Gateway has one cluster for all backends of a rule."""
    _, new = both_versions(pods)
    of_a_rule = (("envoy_cluster_name", "httproute/churn/churn/rule/0"), ("envoy_response_code", "200"))
    pods.page("envoy", {("envoy_cluster_upstream_rq", *of_a_rule): 0})
    with prometheus(tmp_path, pods, MESH) as url:
        pods.settle(CANARY_POD, "envoy")
        window = Opened(10, False, datetime.now(UTC))
        for _ in range(60):
            answered(new, [0.3])
        pods.worker(CANARY_POD, new)
        pods.page("envoy", {("envoy_cluster_upstream_rq", *of_a_rule): 60})
        pods.settle(CANARY_POD, "envoy")
        with pytest.raises(
            ServingError,
            match=rf"counts no request of {CANARY_POD}, which answered 60; envoy_cluster_name is httproute/.*"
            r"prometheus\.gateway and gateway_job",
        ):
            seen(url, [window], config(gateway="envoy"))


@needs_prometheus
def test_queries_over_tls_with_password_or_token(pods: Exporters, tmp_path: Path) -> None:
    both_versions(pods)
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=prometheus",
         "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True,
    )  # fmt: skip
    password = tmp_path / "password"
    password.write_text("wrong\n")
    web = {
        "tls_server_config": {"cert_file": str(certificate), "key_file": str(key)},
        "basic_auth_users": {"churn": TEST},
    }
    known = {"user": "churn", "password_file": str(password), "ca_file": str(certificate)}
    with prometheus(tmp_path / "p", pods, [Job("workers", {STABLE_POD: HERE, CANARY_POD: HERE})], web) as url:
        pods.settle(STABLE_POD)
        stranger = PrometheusObserver(url, NEW, config())
        with pytest.raises(ServingError, match="certificate verify failed"):
            stranger.mark()
        observer = PrometheusObserver(url, NEW, config(**known))
        with pytest.raises(ServingError, match=r"401; see rollout\.kserve\.prometheus\.token_file"):
            observer.mark()
        password.write_text("test\n")  # rotated: read at each question
        assert observer.mark() == {}
        assert len(observer.observe([Opened(1, False, datetime.now(UTC))], datetime.now(UTC)).windows) == 1
        password.unlink()
        with pytest.raises(ServingError, match=r"password_file: .*FileNotFoundError"):
            observer.mark()
    with pytest.raises(ConfigError, match=r"prometheus\.ca_file"):
        PrometheusClient(url, config(ca_file=str(tmp_path / "none.crt")).kserve.prometheus)
    with pytest.raises(ValueError, match="give both"):
        config(user="churn")


@needs_prometheus
def test_without_scrapes_there_is_no_evidence_and_no_healthy_canary(pods: Exporters, tmp_path: Path) -> None:
    both_versions(pods)
    with prometheus(tmp_path, pods, [Job("workers", {STABLE_POD: ("elsewhere", "churn")})]) as url:
        pods.settle(STABLE_POD)
        with pytest.raises(ServingError, match=r"no sample of a worker of churn in churn within 120 s"):
            seen(url, [Opened(1, False, datetime.now(UTC))])


class Answers:
    """In Prometheus' place where hours have to pass: what it would give."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []

    def query(self, query: str, at: datetime | None = None) -> list[object]:
        assert at is not None
        span = float(query.rpartition("[")[2].removesuffix("s]"))
        inside = [(t, str(v)) for t, v in self.samples if at.timestamp() - span < t <= at.timestamp()]
        return [{"metric": {"__name__": "x", "pod": "new"}, "values": inside}] if inside else []


@pytest.mark.parametrize(("history", "expected"), [(True, 9.0), (False, 0.0)])
def test_a_series_that_appears_began_at_zero_only_where_the_job_was_scraped_before(
    history: bool, expected: float
) -> None:
    """A pod that is new, or a Prometheus that is."""
    noon = datetime(2026, 11, 26, 12, tzinfo=UTC)

    class Both(Answers):
        def query(self, query: str, at: datetime | None = None) -> list[object]:
            old = [(noon.timestamp() + s, "5") for s in range(-120 if history else 18, 30, 15)]
            return [*super().query(query, at), {"metric": {"__name__": "y"}, "values": old}]

    client = Both()
    client.samples = [(noon.timestamp() + 20, 9.0)]
    series = Series(client, "{}")  # type: ignore[arg-type]
    series.read([Opened(1, False, noon)], noon + timedelta(seconds=30))
    (new,) = (one for one in series.counters if one.labels["__name__"] == "x")
    assert new.grown.get(0, 0.0) == expected


def test_its_metrics_are_the_handler_s() -> None:
    assert set(METRICS) <= {metric["name"] for metric in torchserve_metrics()["counter"]}

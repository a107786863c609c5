"""Gateways in front of the pods of a cluster, and the names of their metrics for requests, errors and
latencies.

The names are those of Istio's standard metrics, of Knative's queue-proxy (two generations: it changed from
OpenCensus to OpenTelemetry in Knative 1.19) and of Envoy's cluster statistics as Contour, Kourier and similar
gateways export them. A gateway that puts both versions into one Envoy cluster, as Envoy Gateway does with the
backends of a rule, does not separate them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from handlers.telemetry import PROBES, REQUESTS
from rollout.counts import quantile
from rollout.evidence import Arm
from rollout.observers.series import Counter, histogram, slower, summed

REVISION = "-deployment"
"""The suffix of Knative's Deployments; its Services and their metrics have the name of the Revision."""


@dataclass(frozen=True)
class Family:
    """The metrics of one kind of gateway. `workload`: the label that is the name of a Deployment, of a
    Revision (`of_revision`) or of a pod (`of_pod`), or that contains the name of a Service (`within`)."""

    requests: str
    latency: str
    """A histogram."""
    code: str
    namespace: str
    workload: str
    of_revision: bool = False
    of_pod: bool = False
    within: bool = False
    to_ms: float = 1.0
    """Milliseconds in its unit of time."""
    fixed: str = ""
    """Further matchers of the selector."""
    our_namespace: str = ""
    """The namespace that a label has to contain too (`within`), since other namespaces may have a service of
    the same name."""
    retried: str = ""
    """Requests answered by a retry; no other metric counts the failure of the first attempt."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.requests, self.latency, self.retried)))

    def is_of(self, label: str, deployments: set[str]) -> bool:
        """Whether a series with this label counts for one of these Deployments."""
        if self.of_pod:
            return deployment_of(label) in deployments
        if self.within:
            names = {deployment.removesuffix(REVISION) for deployment in deployments}
            here = not self.our_namespace or _holds(label, self.our_namespace)
            return here and any(_holds(label, name) for name in names)
        return label in {
            deployment.removesuffix(REVISION) if self.of_revision else deployment
            for deployment in deployments
        }


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
        of_revision=True,
    ),
    "queue-proxy-otel": Family(
        "kn_serving_invocation_duration_seconds_count",
        "kn_serving_invocation_duration_seconds_bucket",
        "http_response_status_code",
        "namespace",
        "pod",
        of_pod=True,
        to_ms=1000.0,
    ),
    "envoy": Family(
        "envoy_cluster_upstream_rq",
        "envoy_cluster_upstream_rq_time_bucket",
        "envoy_response_code",
        "",
        "envoy_cluster_name",
        within=True,
        retried="envoy_cluster_upstream_rq_retry_success",
    ),
}


def gateway(kind: str, namespace: str) -> Family:
    return replace(GATEWAYS[kind], our_namespace=namespace)


def _holds(label: str, name: str) -> bool:
    """Whether `label` contains `name` as a whole Kubernetes name."""
    return re.search(rf"(?<![a-z0-9-]){re.escape(name)}(?![a-z0-9-])", label) is not None


def deployment_of(pod: str) -> str | None:
    """A pod is `<Deployment>-<hash>-<hash>`."""
    return pod.rsplit("-", 2)[0] if pod.count("-") >= 2 else None


def seen_by_the_gateway(
    seen: Arm,
    family: Family,
    gateway: Sequence[Counter],
    workers: Sequence[Counter],
    window: int,
    objective_ms: float,
) -> Arm:
    """`seen` with the gateway's requests, errors and latencies for one version's workloads.

    Our own probes through the gateway, which it counts as requests, are subtracted. Errors are the gateway's,
    or the handlers' where those are more: the gateway may hide an answer 5xx by a retry.
    """
    mine = of_workloads(family, gateway, {one.labels["pod"] for one in workers if "pod" in one.labels})
    all_requests = [one for one in mine if one.labels["__name__"] == family.requests]
    failed = [one for one in all_requests if _failed(one.labels.get(family.code, ""))]
    errors = summed(failed, window, family.requests) + summed(mine, window, family.retried)
    latency = histogram(mine, window, family.latency, family.to_ms)
    ours = [one for one in workers if one.labels.get("through") == "gateway"]
    requests = max(0, summed(all_requests, window, family.requests) - summed(ours, window, PROBES.name))
    return replace(
        seen,
        requests=requests,
        errors=min(requests, max(errors, seen.errors)),
        slow=min(requests, slower(latency, objective_ms)),
        p99_ms=quantile(latency, 0.99),
        latency_ms=latency,
    )


def of_workloads(family: Family, gateway: Sequence[Counter], pods: set[str]) -> list[Counter]:
    deployments = {name for pod in pods if (name := deployment_of(pod))}
    return [one for one in gateway if family.is_of(one.labels.get(family.workload, ""), deployments)]


def blind(family: Family, gateway: Sequence[Counter], workers: Sequence[Counter], enough: int) -> str | None:
    """What is wrong where workers answered at least `enough` requests and the gateway counted none of
    them."""
    answered = sum(sum(one.grown.values()) for one in workers if one.labels["__name__"] == REQUESTS.name)
    pods = {one.labels["pod"] for one in workers if "pod" in one.labels}
    if answered < enough or of_workloads(family, gateway, pods):
        return None
    known = sorted({one.labels.get(family.workload, "") for one in gateway})[:5]
    return (
        f"counts no request of {', '.join(sorted(pods)) or 'workers without a label pod'}, which answered"
        f" {answered:.0f}; {family.workload} is {', '.join(known) or 'nowhere'}: look at"
        " rollout.kserve.prometheus.gateway and gateway_job"
    )


def _failed(code: str) -> bool:
    return code.startswith("5") or code == "0"  # 0 in Istio: the connection ended before a status

"""Envoy's totals for each variant, and the difference of two of them.

An error is an answer 5xx, the end of a connection without an answer, or no answer in time. It counts as the
canary's error also where stable answered the request by a retry. gRPC is HTTP behind the gateway's bridge, so
that its errors are counted in the same way. Health checks of Envoy are not counted.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rollout.counts import quantile
from serving.gateway.envoy.api import CANARY_ALONE
from serving.gateway.process import Gateway

CLUSTERS: Mapping[str, str] = {"stable": "stable", "canary": "canary", "mirrored": CANARY_ALONE}
"""Mirrored: copies of stable's requests. Requests that name the canary are counted with them, so that they
are evidence only in a shadow."""
COUNTERS = ("upstream_rq_completed", "upstream_rq_5xx", "upstream_rq_retry_success")
TIMES = "upstream_rq_time"
EPOCH = "epoch"
"""Envoy's process id: another process begins its totals at 0."""


@dataclass(frozen=True)
class Counts:
    requests: int = 0
    errors: int = 0
    slow: int = 0
    p99_ms: float | None = None
    latency_ms: Mapping[float, int] = field(default_factory=dict)
    """Edge in ms -> requests that took at most so long; the last edge is infinite."""


def totals(gateway: Gateway) -> dict[str, float]:
    """`<variant>.requests`, `.errors` and `.le.<edge>` since Envoy's start. Raises ServingError."""
    names = "|".join(CLUSTERS.values())
    wanted = "|".join((*COUNTERS, TIMES))
    found = gateway.stats(rf"^cluster\.({names})\.({wanted})$")
    sums: dict[str, float] = {EPOCH: float(gateway.pid)}
    for variant, name in CLUSTERS.items():
        for key, value in _of_cluster(found, f"cluster.{name}.").items():
            sums[f"{variant}.{key}"] = value
    return sums


def _of_cluster(found: Mapping[str, Any], prefix: str) -> dict[str, float]:
    def count(name: str) -> float:
        return float(found.get(prefix + name, 0))

    sums = {
        "requests": count("upstream_rq_completed"),
        "errors": count("upstream_rq_5xx") + count("upstream_rq_retry_success"),
    }
    times = found["histograms"].get(prefix + TIMES)
    for bucket in times["buckets"] if times else ():
        sums[f"le.{float(bucket['upper_bound']):g}"] = float(bucket["cumulative"])
    return sums


def between(
    before: Mapping[str, float], after: Mapping[str, float], variant: str, objective_ms: float
) -> Counts:
    """The counts of `variant` between two totals; after a restart of Envoy, since that restart."""
    same = before.get(EPOCH) == after.get(EPOCH)

    def grown(key: str) -> int:
        return max(0, int(after.get(key, 0) - (before.get(key, 0) if same else 0)))

    pattern = re.compile(rf"^{variant}\.le\.(.+)$")
    edges = sorted(float(found[1]) for key in after if (found := pattern.match(key)))
    latency = {edge: grown(f"{variant}.le.{edge:g}") for edge in edges}
    # the histogram is up to half a second behind the counters, so its shares are of its own total
    measured = max(latency.values(), default=0)
    requests = grown(f"{variant}.requests")
    # where Envoy was started for another objective, the next edge above this one is taken
    fast = next((latency[edge] for edge in latency if edge >= objective_ms), measured)
    return Counts(
        requests=requests,
        errors=min(requests, grown(f"{variant}.errors")),
        slow=min(requests, measured - fast),
        p99_ms=quantile(latency | {math.inf: measured}, 0.99),
        latency_ms={**latency, math.inf: measured} if measured else {},
    )

"""The configuration that Envoy reads once, at its start.

Routes, endpoints and certificates are files of their own, which Envoy reads again when they change.
"""

from typing import Any

from serving.config import GatewayConfig
from serving.gateway.envoy.clusters import admin_cluster, torchserve_clusters
from serving.gateway.envoy.instance import EnvoyInstance
from serving.gateway.envoy.latency_buckets import time_buckets
from serving.gateway.envoy.listeners import metrics_listener, public_listener
from serving.sizes import SizeBudget


def bootstrap(
    config: GatewayConfig, instance: EnvoyInstance, model: str, budget: SizeBudget, objective_ms: float
) -> dict[str, Any]:
    """`objective_ms` is a bound of the latency histogram, so that slower requests can be counted."""
    return {
        "node": {"id": "churn", "cluster": "churn"},
        # a socket file of mode 600: the admin API can stop Envoy and move its traffic
        "admin": {"address": {"pipe": {"path": str(instance.admin), "mode": 0o600}}},
        "layered_runtime": {"layers": [{"name": "weights", "admin_layer": {}}]},
        # histograms are updated at each flush; the default, 5 s, is as long as a stage of a short rollout
        "stats_flush_interval": "0.5s",
        "stats_config": {
            "histogram_bucket_settings": [
                {"match": {"suffix": "upstream_rq_time"}, "buckets": list(time_buckets(objective_ms))}
            ]
        },
        "static_resources": {
            "listeners": [
                public_listener(config, instance, model, budget),
                metrics_listener(instance, budget),
            ],
            "clusters": [*torchserve_clusters(config, instance, model), admin_cluster(instance.admin)],
        },
        "overload_manager": budget.overload_manager(connections=4 * config.max_in_flight),
    }

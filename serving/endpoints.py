"""Which TorchServe each slot of the gateway is, as Envoy's ClusterLoadAssignments in plain data."""

from collections.abc import Mapping, Sequence
from typing import Any

from serving.routes import READY_GRPC, canary_alone, cluster
from serving.torchserve import Upstream

TOKEN = ("churn", "authorization")
"""Where an endpoint's metadata hold the header that its TorchServe wants: each has tokens of its own."""


def load_assignments(slots: Mapping[str, Sequence[Upstream]]) -> list[dict[str, Any]]:
    """One assignment a cluster; a slot that is not in `slots` has no endpoint.

    Behind the canary stands stable, in a second rank: it answers whom the canary cannot.
    """
    stable, canary = slots.get("stable", ()), slots.get("canary", ())
    made = [_assignment(READY_GRPC, [stable], True)]
    for grpc in (False, True):
        made.append(_assignment(cluster("stable", grpc), [stable], grpc))
        made.append(_assignment(cluster("canary", grpc), [canary, stable] if canary else [stable], grpc))
        made.append(_assignment(canary_alone(grpc), [canary], grpc))
    return made


def _assignment(name: str, ranks: Sequence[Sequence[Upstream]], grpc: bool) -> dict[str, Any]:
    return {
        "cluster_name": name,
        "endpoints": [
            {
                "priority": rank,
                "lb_endpoints": [_endpoint(upstream, grpc, rank == 0) for upstream in upstreams],
            }
            for rank, upstreams in enumerate(ranks)
        ],
    }


def _endpoint(upstream: Upstream, grpc: bool, asked: bool) -> dict[str, Any]:
    port = upstream.grpc_port if grpc else upstream.inference_port
    # a worker is asked over HTTP, whichever way the requests go
    check = {"port_value": upstream.inference_port} if asked else {"disable_active_health_check": True}
    return {
        "endpoint": {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "health_check_config": check,
        },
        "metadata": {"filter_metadata": {TOKEN[0]: {TOKEN[1]: f"Bearer {upstream.token}"}}},
    }

"""Which TorchServe each slot of the gateway is, as Envoy's ClusterLoadAssignments in plain data."""

from collections.abc import Mapping, Sequence
from typing import Any

from serving.routes import READY_GRPC, SLOTS, cluster
from serving.torchserve import Upstream

TOKEN = ("churn", "authorization")
"""Where an endpoint's metadata hold the header that its TorchServe wants: each has tokens of its own."""


def load_assignments(slots: Mapping[str, Sequence[Upstream]]) -> list[dict[str, Any]]:
    """One assignment a cluster; a slot that is not in `slots` has no endpoint."""
    named = {cluster(slot, grpc): (slots.get(slot, ()), grpc) for slot in SLOTS for grpc in (False, True)}
    named[READY_GRPC] = (slots.get("stable", ()), True)
    return [
        {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_endpoint(upstream, grpc) for upstream in upstreams]}],
        }
        for name, (upstreams, grpc) in named.items()
    ]


def _endpoint(upstream: Upstream, grpc: bool) -> dict[str, Any]:
    port = upstream.grpc_port if grpc else upstream.inference_port
    return {
        "endpoint": {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            # a worker is asked over HTTP, whichever way the requests go
            "health_check_config": {"port_value": upstream.inference_port},
        },
        "metadata": {"filter_metadata": {TOKEN[0]: {TOKEN[1]: f"Bearer {upstream.token}"}}},
    }

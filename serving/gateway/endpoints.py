"""Which TorchServe each slot of the gateway is, as Envoy's ClusterLoadAssignments in plain data."""

from collections.abc import Mapping, Sequence
from typing import Any

from serving.gateway.routes import CANARY_ALONE
from serving.torchserve.server import Upstream

TOKEN = ("churn", "authorization")
"""Where an endpoint's metadata hold the header that its TorchServe wants: each has tokens of its own."""


def load_assignments(slots: Mapping[str, Sequence[Upstream]]) -> list[dict[str, Any]]:
    """One assignment a cluster; a slot that is not in `slots` has no endpoint.

    Behind the canary stands stable, in a second rank: it answers whom the canary cannot.
    """
    stable, canary = slots.get("stable", ()), slots.get("canary", ())
    return [
        _assignment("stable", [stable]),
        _assignment("canary", [canary, stable] if canary else [stable]),
        _assignment(CANARY_ALONE, [canary]),
    ]


def _assignment(name: str, ranks: Sequence[Sequence[Upstream]]) -> dict[str, Any]:
    return {
        "cluster_name": name,
        "endpoints": [
            {
                "priority": rank,
                "lb_endpoints": [_endpoint(upstream, rank == 0) for upstream in upstreams],
            }
            for rank, upstreams in enumerate(ranks)
        ],
    }


def _endpoint(upstream: Upstream, asked: bool) -> dict[str, Any]:
    port = upstream.inference_port
    check = {"port_value": port} if asked else {"disable_active_health_check": True}
    return {
        "endpoint": {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "health_check_config": check,
        },
        "metadata": {"filter_metadata": {TOKEN[0]: {TOKEN[1]: f"Bearer {upstream.token}"}}},
    }

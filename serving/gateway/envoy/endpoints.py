"""The TorchServe processes of each cluster, as Envoy's ClusterLoadAssignments."""

from collections.abc import Mapping, Sequence
from typing import Any

from serving.addresses import LOOPBACK
from serving.gateway.envoy.api import CANARY_ALONE
from serving.torchserve.upstream import Upstream

TOKEN = ("churn", "authorization")
"""Namespace and key of an endpoint's metadata with the header that authorizes requests to its TorchServe."""


def load_assignments(slots: Mapping[str, Sequence[Upstream]]) -> list[dict[str, Any]]:
    """One assignment for each cluster. A slot that is not in `slots` has no endpoint.

    In the canary's cluster, stable has the second priority: it answers what the canary cannot.
    """
    stable, canary = slots.get("stable", ()), slots.get("canary", ())
    return [
        _assignment("stable", [stable]),
        _assignment("canary", [canary, stable] if canary else [stable]),
        _assignment(CANARY_ALONE, [canary]),
    ]


def ports(assignment: Mapping[str, Any]) -> set[int]:
    """The inference ports of an assignment's endpoints."""
    return {
        int(host["endpoint"]["address"]["socket_address"]["port_value"])
        for locality in assignment["endpoints"]
        for host in locality["lb_endpoints"]
    }


def _assignment(name: str, priorities: Sequence[Sequence[Upstream]]) -> dict[str, Any]:
    return {
        "cluster_name": name,
        "endpoints": [
            {
                "priority": priority,
                "lb_endpoints": [_endpoint(upstream, priority == 0) for upstream in upstreams],
            }
            for priority, upstreams in enumerate(priorities)
        ],
    }


def _endpoint(upstream: Upstream, is_checked: bool) -> dict[str, Any]:
    port = upstream.inference_port
    check = {"port_value": port} if is_checked else {"disable_active_health_check": True}
    return {
        "endpoint": {
            "address": {"socket_address": {"address": LOOPBACK, "port_value": port}},
            "health_check_config": check,
        },
        "metadata": {"filter_metadata": {TOKEN[0]: {TOKEN[1]: f"Bearer {upstream.token}"}}},
    }

"""The clusters: where Envoy sends requests, how it retries them, and how it checks the servers' health."""

import json
from pathlib import Path
from typing import Any

from handlers.identity import PROBE_ID
from serving.config import GatewayConfig
from serving.gateway.envoy.api import CANARY_ALONE, HTTP_FILTER, TYPE, overwrite_header
from serving.gateway.envoy.endpoints import TOKEN
from serving.gateway.envoy.instance import EnvoyInstance, watched

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
TOKEN_OF_UPSTREAM = f"%UPSTREAM_METADATA({TOKEN[0]}:{TOKEN[1]})%"


def torchserve_clusters(config: GatewayConfig, instance: EnvoyInstance, model: str) -> list[dict[str, Any]]:
    checked = {"health_checks": [_prediction_check(config, model)]}
    return [
        _torchserve(config, instance, "stable", _retry_unsent()) | checked,
        _torchserve(config, instance, "canary", _retry_at_stable(config)) | checked,
        _torchserve(config, instance, CANARY_ALONE, _retry_unsent()),
    ]


def admin_cluster(socket: Path) -> dict[str, Any]:
    """Envoy's own admin API, for the listener of metrics."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(socket)}}}}
    return {
        "name": "admin",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "admin", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _torchserve(
    config: GatewayConfig, instance: EnvoyInstance, name: str, retries: dict[str, Any]
) -> dict[str, Any]:
    limits = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    options = {
        "@type": f"type.googleapis.com/{OPTIONS}",
        "explicit_http_config": {"http_protocol_options": {}},
        "retry_policy": retries,
        "http_filters": [
            {"name": "churn.token", "typed_config": _add_token()},
            {
                "name": "envoy.filters.http.upstream_codec",
                "typed_config": {"@type": f"{HTTP_FILTER}upstream_codec.v3.UpstreamCodec"},
            },
        ],
    }
    return {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": watched(instance.endpoints(name))},
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {OPTIONS: options},
        "circuit_breakers": {
            "thresholds": [{**dict.fromkeys(limits, config.max_in_flight), "track_remaining": True}]
        },
        # Envoy's threads get changes at once; by default they are collected over a second
        "common_lb_config": {"update_merge_window": "0s"},
        # a server that is replaced is removed from the endpoints, and its requests in flight are finished
        "ignore_health_on_host_removal": True,
    }


def _retry_unsent() -> dict[str, Any]:
    """Retries only what TorchServe has certainly not seen: no connection, or the request was not sent yet."""
    return {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2}


def _retry_at_stable(config: GatewayConfig) -> dict[str, Any]:
    """Stable answers what the canary refuses, drops or does not answer in time.

    A prediction changes nothing, so that a second attempt does no harm. The canary's failures are counted all
    the same (`retry.upstream_rq_5xx`).
    """
    rank = "previous_priorities"
    return {
        "retry_on": "5xx",
        "num_retries": 1,
        "per_try_timeout": f"{config.timeout_s / 3:g}s",
        "retry_priority": {
            "name": f"envoy.retry_priorities.{rank}",
            "typed_config": {
                "@type": f"{TYPE}extensions.retry.priority.{rank}.v3.PreviousPrioritiesConfig",
                "update_frequency": 1,
            },
        },
    }


def _add_token() -> dict[str, Any]:
    return {
        "@type": f"{HTTP_FILTER}header_mutation.v3.HeaderMutation",
        "mutations": {
            "request_mutations": [{"append": overwrite_header("authorization", TOKEN_OF_UPSTREAM)}]
        },
    }


def _prediction_check(config: GatewayConfig, model: str) -> dict[str, Any]:
    """A health check by a whole prediction.

    TorchServe's own /ping reports "Healthy" before its worker is ready and after the worker died.
    """
    body = json.dumps({"instances": [{"user_id": PROBE_ID}]})
    interval = f"{config.health_interval_s}s"
    headers = {"authorization": TOKEN_OF_UPSTREAM, "content-type": "application/json"}
    return {
        "timeout": "5s",
        "interval": interval,
        "no_traffic_interval": interval,
        "unhealthy_interval": interval,
        "no_traffic_healthy_interval": interval,
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {
            "path": f"/v1/models/{model}:predict",
            "method": "POST",
            "send": {"text": body.encode().hex()},
            "request_headers_to_add": [
                {"header": {"key": key, "value": value}} for key, value in headers.items()
            ],
            "expected_statuses": [{"start": 200, "end": 201}],
        },
    }

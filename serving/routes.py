"""Which paths the gateway answers, and where each goes. What is not listed here does not exist for others.

The result is Envoy's RouteConfiguration as plain data: keys, model name and versions change at run time.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serving.config import GatewayConfig
from serving.keys import Key

SLOTS = ("stable", "canary")
KEYS_FILTER = "churn.keys"
REFUSAL_FILTER = "churn.grpc_refusal"
READY_GRPC = "ready_grpc"
"""Like stable_grpc, but without a healthy worker it refuses: for gRPC's questions of readiness."""
WEIGHT = "churn.weight"
"""Runtime keys `churn.weight.<cluster>`: what share of the requests a slot gets, out of 100."""
OPEN_PATHS = ("/v2/health/live", "/v2/health/ready")
"""For load balancers, which hold no key; they say nothing else."""

FILTER_ON = "type.googleapis.com/envoy.config.route.v3.FilterConfig"
LUA_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute"
OIP = "inference.GRPCInferenceService"
TORCHSERVE_OIP = "org.pytorch.serve.grpc.openinference.GRPCInferenceService"
NATIVE_GRPC = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
NATIVE_METHODS = ("Ping", "Predictions")
OIP_METHODS = ("ServerLive", "ServerMetadata", "ModelMetadata", "ModelInfer")


def cluster(slot: str, grpc: bool) -> str:
    return f"{slot}_grpc" if grpc else slot


def ready_paths(model: str) -> tuple[str, ...]:
    """GET on one of these is 200 while a worker answers real predictions, else 503."""
    return ("/v2/health/ready", f"/v2/models/{model}/ready", f"/v1/models/{model}")


def route_configuration(
    config: GatewayConfig, model: str, metadata: Mapping[str, Any], keys: Iterable[Key]
) -> dict[str, Any]:
    """`metadata`: what Open Inference Protocol v2 says of the model (serving/metadata.py)."""
    host: dict[str, Any] = {
        "name": "churn",
        "domains": ["*"],
        "routes": _routes(config, model, metadata),
        # of no use to a worker, and each header costs it time
        # TorchServe's x-request-id is its own; the client's is put back by Envoy
        "response_headers_to_remove": ["x-churn-request-id"],
        "request_headers_to_remove": ["x-forwarded-proto", "user-agent", "accept", "accept-encoding"],
    }
    if config.keys:
        allowed = {key.sha256: key.name for key in keys}
        host["typed_per_filter_config"] = {KEYS_FILTER: {"@type": LUA_ROUTE, "filter_context": allowed}}
    return {"name": "churn", "virtual_hosts": [host]}


def _routes(config: GatewayConfig, model: str, metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    to_model = {
        "native": f"/predictions/{model}",
        "native-explain": f"/explanations/{model}",
        "v1-predict": f"/v1/models/{model}:predict",
        "v1-explain": f"/v1/models/{model}:explain",
        "v2-infer": f"/v2/models/{model}/infer",
    }
    answered: dict[str, Any] = {
        "/": {"status": "alive"},
        "/v2/health/live": {"live": True},
        "/v2": {"name": "churn", "version": "1", "extensions": []},
        "/v1/models": {"models": [model]},
        f"/v2/models/{model}": metadata,
        # only ever reached with a healthy worker: the health_check filter stands before it
        **{path: {} for path in ready_paths(model)},
    }
    return [
        *(_to_cluster(name, {"path": path}, config) for name, path in to_model.items()),
        *(_says(path, content, config) for path, content in answered.items()),
        *(_grpc(OIP, method, config, TORCHSERVE_OIP) for method in OIP_METHODS),
        *(_grpc(OIP, method, config, TORCHSERVE_OIP, READY_GRPC) for method in ("ServerReady", "ModelReady")),
        *(_grpc(NATIVE_GRPC, method, config) for method in NATIVE_METHODS),
        *(_refuses(path, 405, "POST here") for path in to_model.values()),
        *(_refuses(path, 405, "GET here") for path in answered),
        _refuses_all(),
    ]


def _to_cluster(name: str, path: Mapping[str, str], config: GatewayConfig) -> dict[str, Any]:
    return {
        "name": name,
        "match": {**path, "headers": [_method("POST")]},
        "route": {**_split(False), **_manners(config)},
    }


def _grpc(
    service: str, method: str, config: GatewayConfig, renamed: str = "", only: str = ""
) -> dict[str, Any]:
    action: dict[str, Any] = {"cluster": only} if only else _split(True)
    if renamed:
        action["prefix_rewrite"] = f"/{renamed}/{method}"
    return {
        "name": f"grpc-{method}",
        "match": {"path": f"/{service}/{method}", "grpc": {}},
        "route": {**action, **_manners(config)},
        "typed_per_filter_config": {REFUSAL_FILTER: {"@type": FILTER_ON, "config": {}}},
    }


def _split(grpc: bool) -> dict[str, Any]:
    weights = [{"name": cluster(slot, grpc), "weight": 100 if slot == "stable" else 0} for slot in SLOTS]
    return {"weighted_clusters": {"clusters": weights, "runtime_key_prefix": WEIGHT}}


def _manners(config: GatewayConfig) -> dict[str, Any]:
    return {
        "timeout": f"{config.timeout_s}s",
        # only what TorchServe has certainly not seen: it was not reached, or not yet sent the request
        "retry_policy": {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2},
    }


def _says(path: str, content: Any, config: GatewayConfig) -> dict[str, Any]:
    route = {
        "name": "answered-here",
        "match": {"path": path, "headers": [_method("GET")]},
        "direct_response": {"status": 200, "body": {"inline_string": json.dumps(content)}},
        "response_headers_to_add": _json_type(),
    }
    if config.keys and path in OPEN_PATHS:
        route["typed_per_filter_config"] = {KEYS_FILTER: {"@type": LUA_ROUTE, "disabled": True}}
    return route


def _refuses(path: str, status: int, reason: str) -> dict[str, Any]:
    return {
        "name": "refused",
        "match": {"path": path},
        "direct_response": {"status": status, "body": {"inline_string": json.dumps({"error": reason})}},
        "response_headers_to_add": _json_type(),
    }


def _refuses_all() -> dict[str, Any]:
    return {**_refuses("", 404, "no such path"), "match": {"prefix": "/"}}


def _json_type() -> Sequence[dict[str, Any]]:
    return [
        {
            "header": {"key": "content-type", "value": "application/json"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    ]


def _method(name: str) -> dict[str, Any]:
    return {"name": ":method", "string_match": {"exact": name}}

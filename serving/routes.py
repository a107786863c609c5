"""Which paths the gateway answers, and where each goes. What is not listed here does not exist for others.

The result is Envoy's RouteConfiguration as plain data: keys, model name and versions change at run time.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.config import GatewayConfig
from serving.keys import Key

SLOTS = ("stable", "canary")
KEYS_FILTER = "churn.keys"
REFUSAL_FILTER = "churn.grpc_refusal"
USER_FILTER = "churn.user"
READY_GRPC = "ready_grpc"
"""Like stable_grpc, but without a healthy worker it refuses: for gRPC's questions of readiness."""
CUSTOMER_FILTER = "churn.customer"
WEIGHT = "churn.weight"
"""Runtime keys `churn.weight.<cluster>`: what share of the customers a slot gets, out of 100."""
MIRROR = "churn.mirror"
"""Runtime key: what share of stable's requests is copied to the canary, out of 100."""
USER, VARIANT = "x-churn-user", "x-churn-variant"
"""Whose request it is, when the body does not say it or says it late; and who is to answer it."""
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
    """The slot's share of the customers. Who cannot be answered by the canary is answered by stable."""
    return f"{slot}_grpc" if grpc else slot


def canary_alone(grpc: bool) -> str:
    """Copies of stable's requests, and who asks for the canary by name: never answered by stable."""
    return "canary_alone_grpc" if grpc else "canary_alone"


def ready_paths(model: str) -> tuple[str, ...]:
    """GET on one of these is 200 while a worker answers real predictions, else 503."""
    return ("/v2/health/ready", f"/v2/models/{model}/ready", f"/v1/models/{model}")


def route_configuration(
    config: GatewayConfig, model: str, metadata: Mapping[str, Any], keys: Iterable[Key], trial: bool = False
) -> dict[str, Any]:
    """`metadata`: what Open Inference Protocol v2 says of the model (serving/metadata.py). `trial`: there is
    a canary, so that the customer has to be known before the variant; without one no body is read for that.
    """
    host: dict[str, Any] = {
        "name": "churn",
        "domains": ["*"],
        "routes": _routes(config, model, metadata, trial),
        # of no use to a worker, and each header costs it time
        # TorchServe's x-request-id is its own; the client's is put back by Envoy
        "response_headers_to_remove": ["x-churn-request-id"],
        "request_headers_to_remove": [
            *("x-forwarded-proto", "user-agent", "accept", "accept-encoding"),
            *(USER, VARIANT),
        ],
    }
    if config.keys:
        allowed = {key.sha256: key.name for key in keys}
        host["typed_per_filter_config"] = {KEYS_FILTER: {"@type": LUA_ROUTE, "filter_context": allowed}}
    return {"name": "churn", "virtual_hosts": [host]}


def _routes(
    config: GatewayConfig, model: str, metadata: Mapping[str, Any], trial: bool
) -> list[dict[str, Any]]:
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
    questions = ("ServerReady", "ModelReady")
    return [
        _refuses_other_variants(),
        *(
            _to_cluster(name, path, way)
            for way in _ways(config, False, trial)
            for name, path in to_model.items()
        ),
        *(_says(path, content, config) for path, content in answered.items()),
        *(
            _grpc(service, method, way, renamed)
            for way in _ways(config, True, trial)
            for service, methods, renamed in (
                (OIP, OIP_METHODS, TORCHSERVE_OIP),
                (NATIVE_GRPC, NATIVE_METHODS, ""),
            )
            for method in methods
        ),
        *(
            _grpc(OIP, method, _Way({"cluster": READY_GRPC, **_patience(config)}), TORCHSERVE_OIP)
            for method in questions
        ),
        *(_refuses(path, 405, "POST here") for path in to_model.values()),
        *(_refuses(path, 405, "GET here") for path in answered),
        _refuses_all(),
    ]


@dataclass(frozen=True)
class _Way:
    """Where requests go; `headers` they must have for it."""

    action: Mapping[str, Any]
    headers: Sequence[Mapping[str, Any]] = ()
    filters: Mapping[str, Any] = field(default_factory=dict)


def _ways(config: GatewayConfig, grpc: bool, trial: bool) -> tuple[_Way, ...]:
    """To a variant asked for by name, which keys.lua lets nobody do without a key; all others by weight."""
    by_name = {"canary": canary_alone(grpc), "stable": cluster("stable", grpc)}
    return (
        *(
            _Way({"cluster": name, **_patience(config)}, [_header(VARIANT, variant)])
            for variant, name in by_name.items()
        ),
        _Way(
            {**_split(grpc), **_patience(config)},
            filters={name: {"@type": FILTER_ON, "config": {}} for name in (USER_FILTER, CUSTOMER_FILTER)}
            if trial
            else {},
        ),
    )


def _to_cluster(name: str, path: str, way: _Way) -> dict[str, Any]:
    return {
        "name": name,
        "match": {"path": path, "headers": [_header(":method", "POST"), *way.headers]},
        "route": way.action,
        "typed_per_filter_config": way.filters,
    }


def _grpc(service: str, method: str, way: _Way, renamed: str) -> dict[str, Any]:
    rewrite = {"prefix_rewrite": f"/{renamed}/{method}"} if renamed else {}
    return {
        "name": f"grpc-{method}",
        "match": {"path": f"/{service}/{method}", "grpc": {}, "headers": way.headers},
        "route": {**way.action, **rewrite},
        "typed_per_filter_config": {REFUSAL_FILTER: {"@type": FILTER_ON, "config": {}}, **way.filters},
    }


def _split(grpc: bool) -> dict[str, Any]:
    """By a hash of the customer, where one is known, else by chance. Stable has the low end of the hashes:
    who is on the canary stays there when its weight grows.
    """
    weights = [{"name": cluster(slot, grpc), "weight": 100 if slot == "stable" else 0} for slot in SLOTS]
    none = {"numerator": 0, "denominator": "HUNDRED"}
    return {
        "weighted_clusters": {"clusters": weights, "runtime_key_prefix": WEIGHT, "use_hash_policy": True},
        "hash_policy": [{"header": {"header_name": USER}}],
        "request_mirror_policies": [
            {
                "cluster": canary_alone(grpc),
                "runtime_fraction": {"default_value": none, "runtime_key": MIRROR},
            }
        ],
    }


def _patience(config: GatewayConfig) -> dict[str, Any]:
    return {"timeout": f"{config.timeout_s}s"}


def _refuses_other_variants() -> dict[str, Any]:
    """A misspelt variant is told so, instead of being answered by any."""
    names = f"{VARIANT}: {' or '.join(SLOTS)}"
    others = [{**_header(VARIANT, slot), "invert_match": True} for slot in SLOTS]
    there = {"name": VARIANT, "present_match": True}
    return {**_refuses("", 400, names), "match": {"prefix": "/", "headers": [there, *others]}}


def _says(path: str, content: Any, config: GatewayConfig) -> dict[str, Any]:
    route = {
        "name": "answered-here",
        "match": {"path": path, "headers": [_header(":method", "GET")]},
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


def _header(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "string_match": {"exact": value}}

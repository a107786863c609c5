"""Which paths the gateway answers, and where each goes. What is not listed here does not exist for others.

The result is Envoy's RouteConfiguration as plain data: keys, model name and versions change at run time.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.config import GatewayConfig
from serving.gateway import grpc_routes
from serving.gateway.grpc_routes import FILTER_ON, LUA_ROUTE, READY_FILTER, RPC
from serving.gateway.keys import Key, keys_filter
from serving.gateway.metadata import SERVER
from serving.gateway.openapi import PATH, document

SLOTS = ("stable", "canary")
"""Each is a cluster of that name: the slot's share of the customers. Who cannot be answered by the canary is
answered by stable."""
CANARY_ALONE = "canary_alone"
"""Copies of stable's requests, and who asks for the canary by name: never answered by stable."""
KEYS_FILTER = "churn.keys"
USER_FILTER = "churn.user"
CUSTOMER_FILTER = "churn.customer"
WEIGHT = "churn.weight"
"""Runtime keys `churn.weight.<cluster>`: what share of the customers a slot gets, out of 100."""
MIRROR = "churn.mirror"
"""Runtime key: what share of stable's requests is copied to the canary, out of 100."""
USER, VARIANT, VERSION = "x-churn-user", "x-churn-variant", "x-churn-version"
"""Whose request it is, when the body does not say it or says it late; who is to answer it; and the version
that a gRPC message names, which user.lua reads."""
RECEIVED = "x-churn-received"
"""When the request came, for the span `queue` (handlers/tracing.py)."""
OPEN_PATHS = ("/v2/health/live", "/v2/health/ready", "/livez", "/readyz", "/healthz")
"""For load balancers, which hold no key; they say nothing else."""


def ready_answers(model: str) -> dict[str, dict[str, Any]]:
    """GET on one of these is 200 while a worker answers real predictions, else 503: path -> what it says."""
    return {
        "/v2/health/ready": {"ready": True},
        "/readyz": {"ready": True},
        "/healthz": {"ready": True},
        f"/v2/models/{model}/ready": {"name": model, "ready": True},
        f"/v1/models/{model}": {"name": model, "ready": True},
    }


def route_configuration(
    config: GatewayConfig,
    model: str,
    metadata: Mapping[str, Any],
    keys: Iterable[Key],
    trial: bool = False,
    max_instances: int = 1000,
    traced: bool = False,
) -> dict[str, Any]:
    """`metadata`: what Open Inference Protocol v2 says of the model (serving/gateway/metadata.py). `trial`:
    there is a canary, so that the customer has to be known before the variant; without one no body is read
    for that. `max_instances`: customers a request, for the OpenAPI document. `traced`: workers make spans,
    and need to know when a request was received.
    """
    described = document(model, metadata, max_instances, config.keys)
    host: dict[str, Any] = {
        "name": "churn",
        "domains": ["*"],
        "routes": [_direct_response(PATH, described, config), *_routes(config, model, metadata, trial)],
        # of no use to a worker, and each header costs it time
        # TorchServe's x-request-id is its own; the client's is put back by Envoy
        "response_headers_to_remove": ["x-churn-request-id"],
        "request_headers_to_remove": [
            *("x-forwarded-proto", "user-agent", "accept", "accept-encoding"),
            *(USER, VARIANT, VERSION),
            *([] if traced else [RECEIVED]),
        ],
    }
    if traced:
        host["request_headers_to_add"] = [_set(RECEIVED, "%START_TIME(%s.%6f)%")]
    if config.keys:
        source = {"inline_string": keys_filter(keys, config)}
        host["typed_per_filter_config"] = {KEYS_FILTER: {"@type": LUA_ROUTE, "source_code": source}}
    return {
        "name": "churn",
        "virtual_hosts": [host],
        "max_direct_response_body_size_bytes": len(json.dumps(described)) + 4096,
    }


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
    # Open Inference Protocol: a client may name the version that it wants; who does is answered by no other
    versions = {f"/v2/models/{model}/versions/{version}": version for version in metadata.get("versions", ())}
    ready = [*ready_answers(model), *(f"{path}/ready" for path in versions)]
    answered: dict[str, Any] = {
        "/": {"status": "alive"},
        "/v2/health/live": {"live": True},
        "/livez": {"live": True},
        "/v2": SERVER,
        "/v1/models": {"models": [model]},
        f"/v2/models/{model}": metadata,
        **{path: {**metadata, "versions": [version]} for path, version in versions.items()},
    }
    destinations = _destinations(config, trial)
    stable = _Destination({"cluster": "stable", **_timeout(config)})
    infer = to_model["v2-infer"]
    return [
        _error_for_other_variants(),
        *(
            _to_cluster(name, path, destination)
            for destination in destinations
            for name, path in to_model.items()
        ),
        *(_to_cluster("v2-infer-version", f"{path}/infer", stable, infer) for path in versions),
        *(_direct_response(path, content, config) for path, content in answered.items()),
        *(_ready(path, config) for path in ready),
        *(
            route
            for destination in (*_by_version(metadata, config, trial), *destinations)
            for route in grpc_routes.to_model(
                model, "model", destination.action, headers=destination.headers, filters=destination.filters
            )
        ),
        *grpc_routes.answered_here(model, SERVER, metadata),
        *(
            _error_response(path, 405, "POST here", "POST")
            for path in (*to_model.values(), *(f"{path}/infer" for path in versions))
        ),
        *(_error_response(path, 405, "GET here", "GET, HEAD") for path in (PATH, *answered, *ready)),
        {
            **_error_response("", 404, "this version is not served; GET the model for those that are"),
            "match": {"prefix": f"/v2/models/{model}/versions/"},
        },
        {
            **_error_response("", 404, "no such path"),
            "match": {"prefix": "/"},
            "typed_per_filter_config": {grpc_routes.STATUS_FILTER: {"@type": FILTER_ON, "config": {}}},
        },
    ]


@dataclass(frozen=True)
class _Destination:
    """Where requests go; `headers` they must have for it."""

    action: Mapping[str, Any]
    headers: Sequence[Mapping[str, Any]] = ()
    filters: Mapping[str, Any] = field(default_factory=dict)


def _destinations(config: GatewayConfig, trial: bool) -> tuple[_Destination, ...]:
    """To a variant asked for by name, which keys.lua lets nobody do without a key; all others by weight."""
    by_name = {"canary": CANARY_ALONE, "stable": "stable"}
    return (
        *(
            _Destination({"cluster": name, **_timeout(config)}, [_header(VARIANT, variant)])
            for variant, name in by_name.items()
        ),
        _Destination(
            {**_split(), **_timeout(config)},
            filters={name: {"@type": FILTER_ON, "config": {}} for name in (USER_FILTER, CUSTOMER_FILTER)}
            if trial
            else {},
        ),
    )


def _by_version(metadata: Mapping[str, Any], config: GatewayConfig, trial: bool) -> list[_Destination]:
    """gRPC names the version in the message: while two are there, who names stable's goes to stable."""
    versions = metadata.get("versions", ()) if trial else ()
    return [
        _Destination({"cluster": "stable", **_timeout(config)}, [_header(VERSION, version)])
        for version in versions
    ]


def _to_cluster(name: str, path: str, destination: _Destination, rewritten: str = "") -> dict[str, Any]:
    rewrite = {"prefix_rewrite": rewritten} if rewritten else {}
    return {
        "name": name,
        "match": {"path": path, "headers": [_header(":method", "POST"), *destination.headers]},
        "route": {**destination.action, **rewrite},
        "typed_per_filter_config": destination.filters,
        # curl's default content type is that of a form, which TorchServe would parse as one
        "request_headers_to_add": [_set("content-type", "application/json")],
        "request_headers_to_remove": [RPC],
    }


def _split() -> dict[str, Any]:
    """By a hash of the customer, where one is known, else by chance. Stable has the low end of the hashes:
    who is on the canary stays there when its weight grows.
    """
    weights = [{"name": slot, "weight": 100 if slot == "stable" else 0} for slot in SLOTS]
    none = {"numerator": 0, "denominator": "HUNDRED"}
    return {
        "weighted_clusters": {"clusters": weights, "runtime_key_prefix": WEIGHT, "use_hash_policy": True},
        "hash_policy": [{"header": {"header_name": USER}}],
        "request_mirror_policies": [
            {"cluster": CANARY_ALONE, "runtime_fraction": {"default_value": none, "runtime_key": MIRROR}}
        ],
    }


def _timeout(config: GatewayConfig) -> dict[str, Any]:
    return {"timeout": f"{config.timeout_s}s"}


def _error_for_other_variants() -> dict[str, Any]:
    """A misspelt variant is an error, instead of being answered by any."""
    names = f"{VARIANT}: {' or '.join(SLOTS)}"
    others = [{**_header(VARIANT, slot), "invert_match": True} for slot in SLOTS]
    there = {"name": VARIANT, "present_match": True}
    return {**_error_response("", 400, names), "match": {"prefix": "/", "headers": [there, *others]}}


def _direct_response(path: str, content: Any, config: GatewayConfig) -> dict[str, Any]:
    return _asked(path, config) | {
        "direct_response": {"status": 200, "body": {"inline_string": json.dumps(content)}},
        "response_headers_to_add": [_set("content-type", "application/json")],
    }


def _ready(path: str, config: GatewayConfig) -> dict[str, Any]:
    """Answered by a filter before this, which knows whether a worker answers real predictions."""
    route = _asked(path, config) | {"direct_response": {"status": 503}}
    return route | {
        "typed_per_filter_config": {
            **route.get("typed_per_filter_config", {}),
            READY_FILTER: {"@type": FILTER_ON, "config": {}},
        }
    }


def _asked(path: str, config: GatewayConfig) -> dict[str, Any]:
    method = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}
    route: dict[str, Any] = {"name": "answered-here", "match": {"path": path, "headers": [method]}}
    if config.keys and path in OPEN_PATHS:
        route["typed_per_filter_config"] = {KEYS_FILTER: {"@type": LUA_ROUTE, "disabled": True}}
    return route


def _error_response(path: str, status: int, reason: str, allow: str = "") -> dict[str, Any]:
    return {
        "name": "refused",
        "match": {"path": path},
        "direct_response": {"status": status, "body": {"inline_string": json.dumps({"error": reason})}},
        "response_headers_to_add": [
            _set("content-type", "application/json"),
            *([_set("allow", allow)] if allow else []),
        ],
    }


def _set(name: str, value: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _header(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "string_match": {"exact": value}}

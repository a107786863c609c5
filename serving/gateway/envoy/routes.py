"""The paths that the gateway answers, and the cluster of each, as Envoy's RouteConfiguration.

A path that is not listed here is a 404. Envoy reads the routes again whenever keys, model or variants change.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from handlers.protocol.messages import Route
from handlers.protocol.protocols import PROTOCOLS
from serving.config import GatewayConfig
from serving.gateway.envoy import grpc_routes
from serving.gateway.envoy.api import (
    CANARY_ALONE,
    CUSTOMER_FILTER,
    KEYS_FILTER,
    LUA_ROUTE,
    MIRROR,
    READY_FILTER,
    SLOTS,
    STATUS_FILTER,
    USER_FILTER,
    WEIGHT,
    filter_on,
    header_equals,
    overwrite_header,
)
from serving.gateway.envoy.filters import keys_script
from serving.gateway.envoy.grpc_routes import RPC
from serving.gateway.keys import Key
from serving.gateway.metadata import SERVER
from serving.gateway.openapi import PATH, document

USER, VARIANT, VERSION = "x-churn-user", "x-churn-variant", "x-churn-version"
"""Headers: the customer, where the body does not name one at its beginning; the variant that has to answer;
and the version that a gRPC message names, which user.lua reads."""
RECEIVED = "x-churn-received"
"""Header: when the request was received, for the span `queue` (handlers/tracing.py)."""
OPEN_PATHS = ("/v2/health/live", "/v2/health/ready", "/livez", "/readyz", "/healthz")
"""Answered without a key, for load balancers. They contain nothing but readiness."""


@dataclass(frozen=True)
class ServedModel:
    """What the gateway serves at the moment."""

    model: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The model's metadata in Open Inference Protocol v2 (serving/gateway/metadata.py)."""
    keys: tuple[Key, ...] = ()
    has_canary: bool = False
    """While true, Envoy reads bodies to find the customer, who decides the variant."""
    max_instances: int = 1000
    """Customers in a request, for the OpenAPI document."""
    traced: bool = False
    """Whether workers make spans, and so need the time at which a request was received."""


@dataclass(frozen=True)
class _Destination:
    """Where requests with these headers are sent."""

    action: Mapping[str, Any]
    headers: Sequence[Mapping[str, Any]] = ()
    filters: Mapping[str, Any] = field(default_factory=dict)


def ready_answers(model: str) -> dict[str, dict[str, Any]]:
    """Path -> body of its 200. GET is 200 while a worker answers predictions, else 503."""
    return {
        "/v2/health/ready": {"ready": True},
        "/readyz": {"ready": True},
        "/healthz": {"ready": True},
        f"/v2/models/{model}/ready": {"name": model, "ready": True},
        f"/v1/models/{model}": {"name": model, "ready": True},
    }


def route_configuration(config: GatewayConfig, served: ServedModel) -> dict[str, Any]:
    described = document(served.model, served.metadata, served.max_instances, config.keys)
    host: dict[str, Any] = {
        "name": "churn",
        "domains": ["*"],
        "routes": [_direct_response(PATH, described, config), *_routes(config, served)],
        # TorchServe's x-request-id is its own; Envoy answers with the client's
        "response_headers_to_remove": ["x-churn-request-id"],
        # a worker needs none of these, and each header costs it time
        "request_headers_to_remove": [
            *("x-forwarded-proto", "user-agent", "accept", "accept-encoding"),
            *(USER, VARIANT, VERSION),
            *([] if served.traced else [RECEIVED]),
        ],
    }
    if served.traced:
        host["request_headers_to_add"] = [overwrite_header(RECEIVED, "%START_TIME(%s.%6f)%")]
    if config.keys:
        source = {"inline_string": keys_script(served.keys, config)}
        host["typed_per_filter_config"] = {KEYS_FILTER: {"@type": LUA_ROUTE, "source_code": source}}
    return {
        "name": "churn",
        "virtual_hosts": [host],
        "max_direct_response_body_size_bytes": len(json.dumps(described)) + 4096,
    }


def _routes(config: GatewayConfig, served: ServedModel) -> list[dict[str, Any]]:
    """Envoy takes the first route that matches."""
    model, metadata = served.model, served.metadata
    to_model = [
        Route(route.name, *(path.format(model=model) for path in (route.path, route.torchserve_path)))
        for protocol in PROTOCOLS.values()
        for route in protocol.routes
    ]
    # Open Inference Protocol: a client may name a version, and then no other version answers
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
    destinations = _destinations(config, served.has_canary)
    stable = _Destination({"cluster": "stable", **_timeout(config)})
    [infer] = (route.path for route in to_model if route.name == "v2-infer")
    return [
        _error_for_other_variants(),
        *(
            _to_cluster(route.name, route.path, destination, route.torchserve_path)
            for destination in destinations
            for route in to_model
        ),
        *(_to_cluster("v2-infer-version", f"{path}/infer", stable, infer) for path in versions),
        *(_direct_response(path, content, config) for path, content in answered.items()),
        *(_ready(path, config) for path in ready),
        *(
            route
            for destination in (*_by_version(config, served), *destinations)
            for route in grpc_routes.to_model(
                model, destination.action, destination.headers, destination.filters
            )
        ),
        *grpc_routes.answered_here(model, SERVER, metadata),
        *(
            _error_response(path, 405, "POST here", "POST")
            for path in (*(route.path for route in to_model), *(f"{path}/infer" for path in versions))
        ),
        *(_error_response(path, 405, "GET here", "GET, HEAD") for path in (PATH, *answered, *ready)),
        {
            **_error_response("", 404, "this version is not served; GET the model for those that are"),
            "match": {"prefix": f"/v2/models/{model}/versions/"},
        },
        {
            **_error_response("", 404, "no such path"),
            "match": {"prefix": "/"},
            "typed_per_filter_config": {STATUS_FILTER: filter_on()},
        },
    ]


def _destinations(config: GatewayConfig, has_canary: bool) -> tuple[_Destination, ...]:
    """By the variant that a request names (keys.lua allows that only to some keys), else by weight."""
    by_name = {"canary": CANARY_ALONE, "stable": "stable"}
    return (
        *(
            _Destination({"cluster": name, **_timeout(config)}, [header_equals(VARIANT, variant)])
            for variant, name in by_name.items()
        ),
        _Destination(
            {**_split(), **_timeout(config)},
            filters={name: filter_on() for name in (USER_FILTER, CUSTOMER_FILTER)} if has_canary else {},
        ),
    )


def _by_version(config: GatewayConfig, served: ServedModel) -> list[_Destination]:
    """A gRPC message names the version. With a canary, requests for stable's version go to stable."""
    versions = served.metadata.get("versions", ()) if served.has_canary else ()
    return [
        _Destination({"cluster": "stable", **_timeout(config)}, [header_equals(VERSION, version)])
        for version in versions
    ]


def _to_cluster(name: str, path: str, destination: _Destination, rewritten: str = "") -> dict[str, Any]:
    rewrite = {"prefix_rewrite": rewritten} if rewritten else {}
    return {
        "name": name,
        "match": {"path": path, "headers": [header_equals(":method", "POST"), *destination.headers]},
        "route": {**destination.action, **rewrite},
        "typed_per_filter_config": destination.filters,
        # curl's default content type is that of a form, and TorchServe would parse the body as a form
        "request_headers_to_add": [overwrite_header("content-type", "application/json")],
        "request_headers_to_remove": [RPC],
    }


def _split() -> dict[str, Any]:
    """By a hash of the customer, or at random where the customer is unknown.

    Stable has the low end of the hashes: a canary's customers stay with it when its weight grows.
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
    """A misspelt variant is an error. Without this route, any variant would answer."""
    names = f"{VARIANT}: {' or '.join(SLOTS)}"
    others = [{**header_equals(VARIANT, slot), "invert_match": True} for slot in SLOTS]
    present = {"name": VARIANT, "present_match": True}
    return {**_error_response("", 400, names), "match": {"prefix": "/", "headers": [present, *others]}}


def _direct_response(path: str, content: Any, config: GatewayConfig) -> dict[str, Any]:
    return _get(path, config) | {
        "direct_response": {"status": 200, "body": {"inline_string": json.dumps(content)}},
        "response_headers_to_add": [overwrite_header("content-type", "application/json")],
    }


def _ready(path: str, config: GatewayConfig) -> dict[str, Any]:
    """The filter READY_FILTER answers before this route does: it has the result of the health checks."""
    route = _get(path, config) | {"direct_response": {"status": 503}}
    filters = {**route.get("typed_per_filter_config", {}), READY_FILTER: filter_on()}
    return route | {"typed_per_filter_config": filters}


def _get(path: str, config: GatewayConfig) -> dict[str, Any]:
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
            overwrite_header("content-type", "application/json"),
            *([overwrite_header("allow", allow)] if allow else []),
        ],
    }

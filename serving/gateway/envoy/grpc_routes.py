"""gRPC at the gateway: the methods that are answered, and the cluster of each.

Envoy's bridge (grpc_http1_reverse_bridge) passes a gRPC call on as an HTTP request. So TorchServe gives the
whole message to the handler, and a refusal is an HTTP status, which the router retries and counts like any
other. The filters are in `filters.py`; configs/gateway/grpc_*.lua translate the statuses.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from handlers.protocol.open_inference_grpc import INFER, PREDICTIONS
from serving.gateway.envoy import grpc_messages as messages
from serving.gateway.envoy.api import (
    ANSWER_FILTER,
    BRIDGE_FILTER,
    LUA_ROUTE,
    READY_FILTER,
    STATUS_FILTER,
    filter_on,
    header_equals,
    overwrite_header,
)

RPC = "x-churn-rpc"
"""Header: the method whose message the body is, for the handler. It is removed from HTTP requests."""
OIP = "inference.GRPCInferenceService"
NATIVE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
HEALTH = "grpc.health.v1.Health"

_IS_GRPC = {
    "name": "content-type",
    # gRPC's content type before the bridge, protobuf's behind it
    "string_match": {"safe_regex": {"regex": r"application/(grpc([+;].*)?|x-protobuf)"}},
}
_Filters = Mapping[str, Any]


def to_model(
    model: str, action: Mapping[str, Any], headers: Sequence[Mapping[str, Any]], filters: _Filters
) -> list[dict[str, Any]]:
    """Routes of both methods that predict, for requests with these headers, with these filters on."""
    return [
        {
            **_route(service, method, f"grpc-{method}", filters, headers),
            "route": {**action, "prefix_rewrite": f"/predictions/{model}"},
            "request_headers_to_add": [overwrite_header(RPC, method)],
            # a worker needs none of these, and each header costs it time
            "request_headers_to_remove": ["te", "grpc-accept-encoding", "grpc-timeout"],
        }
        for service, method in ((OIP, INFER), (NATIVE, PREDICTIONS))
    ]


def answered_here(model: str, server: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Routes of the methods about server and model. `server`, `metadata`: the answers of REST."""
    versions = ["", *metadata.get("versions", ())]
    this_model: dict[str, Any] = {"names": [model], "versions": versions}
    services = {"names": ["", OIP, model]}
    described = messages.model_metadata(metadata) if metadata else b""
    yes, no = messages.flag(True), messages.flag(False)
    serving, not_serving = messages.health(messages.SERVING), messages.health(messages.NOT_SERVING)
    return [
        _answer(OIP, "ServerLive", yes),
        _answer(OIP, "ServerMetadata", messages.server_metadata(server)),
        _answer(OIP, "ModelMetadata", described, this_model),
        _answer(NATIVE, "Ping", messages.ping()),
        _readiness(OIP, "ServerReady", yes, no, {}),
        _readiness(OIP, "ModelReady", yes, no, this_model),
        _readiness(HEALTH, "Check", serving, not_serving, services),
    ]


def _answer(
    service: str, method: str, message: bytes, accepted: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """`accepted`: values of the request's fields `names` and `versions`; others are NOT_FOUND."""
    filters = _context(accepted or {}, yes=message.hex())
    return {**_route(service, method, "answered-here", filters), "direct_response": {"status": 200}}


def _readiness(
    service: str, method: str, ready: bytes, not_ready: bytes, accepted: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """The filter READY_FILTER answers before this route does: it has the result of the health checks."""
    filters = {**_context(accepted, yes=ready.hex(), no=not_ready.hex()), READY_FILTER: filter_on()}
    return {**_route(service, method, "answered-here", filters), "direct_response": {"status": 503}}


def _context(accepted: Mapping[str, Sequence[str]], **answers: str) -> dict[str, Any]:
    """The values that configs/gateway/grpc_answer.lua reads."""
    context = {name: "\n".join(texts) for name, texts in accepted.items()} | answers
    return {ANSWER_FILTER: filter_on({"@type": LUA_ROUTE, "filter_context": context})}


def _route(
    service: str, method: str, name: str, filters: _Filters, headers: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    on = {name: filter_on() for name in (STATUS_FILTER, BRIDGE_FILTER, ANSWER_FILTER)}
    return {
        "name": name,
        "match": {
            "path": f"/{service}/{method}",
            "headers": [header_equals(":method", "POST"), _IS_GRPC, *headers],
        },
        "typed_per_filter_config": {**on, **filters},
    }

"""gRPC at the gateway: which methods are answered, and by whom.

Envoy's bridge (grpc_http1_reverse_bridge) passes a gRPC call on as an HTTP request, so that TorchServe hands
the whole message to the handler, and a refusal is an HTTP status that the router retries and counts like any
other. The filters stand in serving/gateway/envoy.py; configs/gateway/grpc_*.lua say what becomes of statuses.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from handlers.protocol.open_inference_grpc import INFER, PREDICTIONS
from serving.gateway import grpc_messages as messages

BRIDGE_FILTER = "churn.grpc_bridge"
STATUS_FILTER = "churn.grpc_status"
ANSWER_FILTER = "churn.grpc_answer"
READY_FILTER = "churn.ready"
RPC = "x-churn-rpc"
"""Tells the handler which method a body is a message of; nobody else may send it."""

FILTER_ON = "type.googleapis.com/envoy.config.route.v3.FilterConfig"
LUA_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute"
OIP = "inference.GRPCInferenceService"
NATIVE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
HEALTH = "grpc.health.v1.Health"
# before the bridge it is gRPC's content type, behind it the other
_IS_GRPC = {
    "name": "content-type",
    "string_match": {"safe_regex": {"regex": r"application/(grpc([+;].*)?|x-protobuf)"}},
}


def to_model(model: str, name: str, action: Mapping[str, Any], **more: Any) -> list[dict[str, Any]]:
    """Both methods that predict, by `action`; `more`: `headers` to match and `filters` to turn on."""
    return [
        _route(
            service,
            method,
            name,
            more.get("headers", ()),
            more.get("filters", {}),
            {
                "route": {**action, "prefix_rewrite": f"/predictions/{model}"},
                "request_headers_to_add": [
                    {"header": {"key": RPC, "value": method}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
                ],
                # of no use to a worker, and each header costs it time
                "request_headers_to_remove": ["te", "grpc-accept-encoding", "grpc-timeout"],
            },
        )
        for service, method in ((OIP, INFER), (NATIVE, PREDICTIONS))
    ]


def answered_here(model: str, server: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Questions about server and model. `server`, `metadata`: what REST says of them."""
    versions = ["", *metadata.get("versions", ())]
    this_model: dict[str, Any] = {"names": [model], "versions": versions}
    services = {"names": ["", OIP, model]}
    described = messages.model_metadata(metadata) if metadata else b""
    yes, no = messages.flag(True), messages.flag(False)
    serving, not_serving = messages.health(messages.SERVING), messages.health(messages.NOT_SERVING)
    return [
        _says(OIP, "ServerLive", yes),
        _says(OIP, "ServerMetadata", messages.server_metadata(server)),
        _says(OIP, "ModelMetadata", described, this_model),
        _says(NATIVE, "Ping", messages.ping()),
        _says_ready(OIP, "ServerReady", yes, no, {}),
        _says_ready(OIP, "ModelReady", yes, no, this_model),
        _says_ready(HEALTH, "Check", serving, not_serving, services),
    ]


def _says(
    service: str, method: str, message: bytes, asked: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    context = _context(asked or {}, yes=message.hex())
    return _route(service, method, "answered-here", (), context, {"direct_response": {"status": 200}})


def _says_ready(
    service: str, method: str, ready: bytes, not_ready: bytes, asked: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Answered by the filter that knows whether a worker answers real predictions, before this."""
    context = _context(asked, yes=ready.hex(), no=not_ready.hex())
    filters = {**context, READY_FILTER: {"@type": FILTER_ON, "config": {}}}
    return _route(service, method, "answered-here", (), filters, {"direct_response": {"status": 503}})


def _context(asked: Mapping[str, Sequence[str]], **more: str) -> dict[str, Any]:
    context = {name: "\n".join(texts) for name, texts in asked.items()} | more
    return {ANSWER_FILTER: {"@type": FILTER_ON, "config": {"@type": LUA_ROUTE, "filter_context": context}}}


def _route(
    service: str,
    method: str,
    name: str,
    headers: Sequence[Mapping[str, Any]],
    filters: Mapping[str, Any],
    action: Mapping[str, Any],
) -> dict[str, Any]:
    on = {name: {"@type": FILTER_ON, "config": {}} for name in (STATUS_FILTER, BRIDGE_FILTER, ANSWER_FILTER)}
    post = {"name": ":method", "string_match": {"exact": "POST"}}
    return {
        "name": f"grpc-{method}" if name == "model" else name,
        "match": {"path": f"/{service}/{method}", "headers": [post, _IS_GRPC, *headers]},
        "typed_per_filter_config": {**on, **filters},
        **action,
    }

"""Chooses the protocol of a body, which is parsed into a `Request`, and of its answer.

| protocol | a body | module |
|---|---|---|
| native | `{"user_id": 123}`, or a list of these | `instances` |
| KServe v1 | `{"instances": [{"user_id": 123}]}` | `instances` |
| Open Inference v2 | `{"inputs": [{"name": "user_id", ...}]}` | `v2`, `open_inference_json` |
| the same over gRPC | ModelInferRequest | `v2`, `open_inference_grpc` |

Native and v1 accept what-if questions: beside `user_id`, `"features": {"orders_30d": 0}`. With `"parameters":
{"features": true, "reasons": 3}` the answer contains more than the score; they are beside `user_id` in the
native body of one customer, otherwise beside `instances` or `inputs`. Nothing here does I/O.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from handlers.protocol import json_body
from handlers.protocol import open_inference_grpc as grpc
from handlers.protocol.compression import decompress
from handlers.protocol.instances import NATIVE, NATIVE_LIST, V1
from handlers.protocol.messages import (
    UNKNOWN_CALL,
    Answer,
    BadRequest,
    Call,
    Outcome,
    Protocol,
    Request,
    Rules,
)
from handlers.protocol.v2 import V2

PROTOCOLS: Mapping[str, Protocol] = {one.name: one for one in (NATIVE, NATIVE_LIST, V1, V2)}
"""Name -> protocol. Where a body has the keys of several protocols, the first one parses it."""
_BY_KEY = [(one.key, one) for one in PROTOCOLS.values() if one.key]


def parse(row: Mapping[str, Any], rules: Rules, call: Call = UNKNOWN_CALL) -> Request:
    """Parses one row of a TorchServe batch: name of a parameter -> content. Raises only BadRequest."""
    if call.rpc == grpc.PREDICTIONS:
        row = grpc.predictions_body(grpc.unframed(_bytes(_payload(row)), call, rules), rules)
    payload = _payload(row)
    if call.encoding:
        payload = decompress(_bytes(payload), call.encoding, "Content-Encoding", rules.max_body_bytes)
    if call.rpc or call.headers:
        for protocol in PROTOCOLS.values():
            if protocol.parse_encoded is not None and protocol.is_encoded(call):
                return protocol.parse_encoded(_bytes(payload), rules, call)
    body = json_body.decode(payload)
    if isinstance(body, list):
        return NATIVE_LIST.parse(body, rules, call)
    if not isinstance(body, dict):
        raise BadRequest(f"body: expected a JSON object, found {json_body.kind(body)}")
    for key, protocol in _BY_KEY:
        if key in body:
            return protocol.parse(body, rules, call)
    return NATIVE.parse(body, rules, call)


def respond(request: Request, outcomes: Sequence[Outcome], model_name: str, model_version: str) -> Answer:
    """The answer in the protocol of the request; `outcomes` has one for each user id, in the same order."""
    return PROTOCOLS[request.protocol].respond(request, outcomes, model_name, model_version)


def carried(answer: Answer, call: Call) -> Answer:
    """The answer as the client's transport needs it: a gRPC message or status for a gRPC call."""
    if not call.rpc or answer.content_type == grpc.PROTOBUF:
        return answer
    if answer.http_status == 200:
        return grpc.answer_predictions(answer)
    error = str(json_body.decode(answer.body).get("error", "refused"))
    return grpc.refuse_message(answer.http_status, error, answer.headers)


def _payload(row: Mapping[str, Any]) -> Any:
    """TorchServe passes a raw body as `body` or `data`, and form fields or query parameters by their name."""
    for name in ("data", "body"):
        if name in row:
            return row[name]
    raise BadRequest("body: missing; send JSON with the header Content-Type: application/json")


def _bytes(payload: Any) -> bytes:
    if not isinstance(payload, bytes | bytearray):
        raise BadRequest("body: expected bytes")
    return bytes(payload)

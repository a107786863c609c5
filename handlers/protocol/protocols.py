"""The protocols that the server speaks: each body is read into one `Request` and answered in kind.

| protocol | a body | module |
|---|---|---|
| native | `{"user_id": 123}`, or a list of these | `instances` |
| KServe v1 | `{"instances": [{"user_id": 123}]}` | `instances` |
| Open Inference v2 | `{"inputs": [{"name": "user_id", ...}]}` | `open_inference`, `open_inference_json` |
| the same over gRPC | ModelInferRequest | `open_inference`, `open_inference_grpc` |

Native and v1 take what-if questions: beside `user_id`, `"features": {"orders_30d": 0}`. `"parameters":
{"features": true, "reasons": 3}` (beside `user_id` of a lone native body, beside `instances` or `inputs`
otherwise) ask for more in the answer. Nothing here does I/O.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from handlers.protocol import json_body
from handlers.protocol import open_inference_grpc as grpc
from handlers.protocol.compression import decompress
from handlers.protocol.instances import instance_answer, parse_list, parse_native, parse_v1, v1_body
from handlers.protocol.messages import (
    UNKNOWN_CALL,
    Answer,
    BadRequest,
    Call,
    Outcome,
    Prediction,
    Refusal,
    Request,
    Rules,
)
from handlers.protocol.open_inference import parse_infer
from handlers.protocol.open_inference_json import answer_infer, parse_binary


def parse(row: Mapping[str, Any], rules: Rules, call: Call = UNKNOWN_CALL) -> Request:
    """Read one row of a TorchServe batch. Raises BadRequest, and nothing else, whatever it is given."""
    if call.rpc == grpc.PREDICTIONS:
        row = grpc.predictions_body(grpc.unframed(_bytes(_payload(row)), call, rules), rules)
    payload = _payload(row)
    if call.encoding:
        payload = decompress(_bytes(payload), call.encoding, "Content-Encoding", rules.max_body_bytes)
    if call.rpc == grpc.INFER:
        return grpc.parse_message(_bytes(payload), rules, call)
    if call.json_length is not None:
        return parse_binary(_bytes(payload), rules, call)
    return _parse_json(json_body.decode(payload), rules, call)


def respond(request: Request, outcomes: Sequence[Outcome], model_name: str, model_version: str) -> Answer:
    """Shape the outcomes, one a user id and in that order, the way the request was made.

    A lone native instance that has no score takes its refusal's status; among several instances (native
    list, v1) a refusal stands at its place; a v2 tensor has no room for one, so that the request is refused.
    """
    if request.protocol == "v2":
        for position, outcome in enumerate(outcomes):
            if isinstance(outcome, Refusal):
                return refuse(outcome, f"inputs[0].data[{position}]: ")
        scored = [outcome for outcome in outcomes if isinstance(outcome, Prediction)]
        write = grpc.answer_message if request.rpc == grpc.INFER else answer_infer
        return write(request, scored, model_name, model_version)
    answers = [
        instance_answer(user_id, outcome, model_version)
        for user_id, outcome in zip(request.user_ids, outcomes, strict=True)
    ]
    if request.protocol == "native":
        lone = outcomes[0]
        if isinstance(lone, Refusal):
            return _json(lone.http_status, answers[0], _headers(lone))
        return _json(200, answers[0])
    if request.protocol == "native_list":
        return _json(200, answers)
    return _json(200, v1_body(request, answers))


def refuse(refusal: Refusal, where: str = "") -> Answer:
    """A whole request without a score; a 503 says when to ask again."""
    body = {"error": where + refusal.error} | ({"code": refusal.code} if refusal.code else {})
    return _json(refusal.http_status, body, _headers(refusal))


def carried(answer: Answer, call: Call) -> Answer:
    """`answer` as the call's carrier has it: a gRPC call that came through the gateway has no JSON errors."""
    if not call.rpc or answer.content_type == grpc.PROTOBUF:
        return answer
    if answer.http_status == 200:
        return grpc.answer_predictions(answer)
    error = str(json_body.decode(answer.body).get("error", "refused"))
    return grpc.refuse_message(answer.http_status, error, answer.headers)


def _parse_json(body: Any, rules: Rules, call: Call) -> Request:
    if isinstance(body, list):
        return parse_list(body, rules, call)
    if not isinstance(body, dict):
        raise BadRequest(f"body: expected a JSON object, found {json_body.kind(body)}")
    if "instances" in body:
        return parse_v1(body, rules, call)
    if "inputs" in body:
        return parse_infer(body, rules, call)
    return parse_native(body, rules, call)


def _payload(row: Mapping[str, Any]) -> Any:
    """TorchServe hands over a raw body as `body` or `data`, and form fields or query parameters by name."""
    for name in ("data", "body"):
        if name in row:
            return row[name]
    raise BadRequest("body: missing; send JSON with the header Content-Type: application/json")


def _bytes(payload: Any) -> bytes:
    if not isinstance(payload, bytes | bytearray):
        raise BadRequest("body: expected bytes")
    return bytes(payload)


def _headers(refusal: Refusal) -> dict[str, str]:
    if refusal.retry_after_s is None:
        return {}
    return {"Retry-After": str(max(1, math.ceil(refusal.retry_after_s)))}


def _json(http_status: int, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(http_status, json_body.encode(body).encode(), headers or {})

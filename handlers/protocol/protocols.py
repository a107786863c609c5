"""Chooses the protocol of a body, which is parsed into a `Request`, and of its answer.

| protocol | a body | module |
|---|---|---|
| native | `{"user_id": 123}`, or a list of these | `instances` |
| KServe v1 | `{"instances": [{"user_id": 123}]}` | `instances` |
| Open Inference v2 | `{"inputs": [{"name": "user_id", ...}]}` | `open_inference`, `open_inference_json` |
| the same over gRPC | ModelInferRequest | `open_inference`, `open_inference_grpc` |

Native and v1 accept what-if questions: beside `user_id`, `"features": {"orders_30d": 0}`. With `"parameters":
{"features": true, "reasons": 3}` the answer contains more than the score; they are beside `user_id` in the
native body of one customer, otherwise beside `instances` or `inputs`. Nothing here does I/O.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from handlers.protocol import json_body
from handlers.protocol import open_inference_grpc as grpc
from handlers.protocol.compression import decompress
from handlers.protocol.instances import answer_instances, parse_list, parse_native, parse_v1
from handlers.protocol.json_answers import refuse
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
    """Parses one row of a TorchServe batch: name of a parameter -> content. Raises only BadRequest."""
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
    """The answer in the protocol of the request; `outcomes` has one for each user id, in the same order."""
    if request.protocol != "v2":
        return answer_instances(request, outcomes, model_version)
    # A tensor has no place for a refusal, so one refused customer refuses the request.
    for position, outcome in enumerate(outcomes):
        if isinstance(outcome, Refusal):
            return refuse(outcome, f"inputs[0].data[{position}]: ")
    scored = [outcome for outcome in outcomes if isinstance(outcome, Prediction)]
    write = grpc.answer_message if request.rpc == grpc.INFER else answer_infer
    return write(request, scored, model_name, model_version)


def carried(answer: Answer, call: Call) -> Answer:
    """The answer as the client's transport needs it: a gRPC message or status for a gRPC call."""
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
    """TorchServe passes a raw body as `body` or `data`, and form fields or query parameters by their name."""
    for name in ("data", "body"):
        if name in row:
            return row[name]
    raise BadRequest("body: missing; send JSON with the header Content-Type: application/json")


def _bytes(payload: Any) -> bytes:
    if not isinstance(payload, bytes | bytearray):
        raise BadRequest("body: expected bytes")
    return bytes(payload)

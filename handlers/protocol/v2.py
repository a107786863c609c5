"""Open Inference Protocol v2: chooses between JSON, Triton's binary extension of it, and gRPC messages."""

from collections.abc import Sequence

from handlers.protocol.json_answers import refuse
from handlers.protocol.messages import (
    Answer,
    Call,
    Outcome,
    Prediction,
    Protocol,
    Refusal,
    Request,
    Route,
    Rules,
)
from handlers.protocol.open_inference import NAME, parse_infer
from handlers.protocol.open_inference_grpc import INFER, answer_message, parse_message
from handlers.protocol.open_inference_json import JSON_LENGTH, answer_infer, parse_binary


def parse_encoded(payload: bytes, rules: Rules, call: Call) -> Request:
    """The request of a gRPC message, or of JSON with raw tensors behind it. Raises BadRequest."""
    parse = parse_message if call.rpc == INFER else parse_binary
    return parse(payload, rules, call)


def respond(request: Request, outcomes: Sequence[Outcome], model_name: str, model_version: str) -> Answer:
    """The answer in the form of the request.

    A tensor has no place for a refusal, so one refused customer refuses the request.
    """
    for position, outcome in enumerate(outcomes):
        if isinstance(outcome, Refusal):
            return refuse(outcome, f"inputs[0].data[{position}]: ")
    scored = [outcome for outcome in outcomes if isinstance(outcome, Prediction)]
    write = answer_message if request.rpc == INFER else answer_infer
    return write(request, scored, model_name, model_version)


V2 = Protocol(
    name=NAME,
    parse=parse_infer,
    respond=respond,
    key="inputs",
    headers=(JSON_LENGTH.lower(),),
    is_encoded=lambda call: call.rpc == INFER or JSON_LENGTH.lower() in call.headers,
    parse_encoded=parse_encoded,
    routes=(Route("v2-infer", "/v2/models/{model}/infer"),),
)

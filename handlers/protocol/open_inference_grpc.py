"""gRPC messages that the gateway sends over HTTP: ModelInfer of the Open Inference Protocol, and TorchServe's
own Predictions.

TorchServe's gRPC server drops `raw_input_contents`, and cannot refuse a request with a status. The gateway
therefore sends the unchanged message as the body of an HTTP request.

The layouts are in open_inference_grpc.proto and inference.proto. Each message has a frame of five bytes
before it: whether it is compressed, and its length.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from handlers.protobuf import (
    Corrupt,
    fields,
    put_bytes,
    put_doubles,
    put_integers,
    put_text,
    signed,
    varints,
)
from handlers.protocol import tensors
from handlers.protocol.compression import decompress
from handlers.protocol.messages import (
    NO_HEADERS,
    Answer,
    BadRequest,
    Call,
    NotServed,
    Prediction,
    Request,
    Rules,
)
from handlers.protocol.open_inference import Tensor, parse_infer, tensors_of

PROTOBUF = "application/x-protobuf"
INFER, PREDICTIONS = "ModelInfer", "Predictions"
LONGEST_REASON = 500
_FRAME = struct.Struct(">BI")


def unframed(payload: bytes, call: Call, rules: Rules) -> bytes:
    """The message of a unary call without its frame, decompressed. Raises BadRequest."""
    if len(payload) < _FRAME.size:
        raise BadRequest("body: shorter than the frame of a gRPC message")
    compressed, length = _FRAME.unpack_from(payload)
    if compressed > 1 or length != len(payload) - _FRAME.size:
        raise BadRequest("body: not one gRPC message")
    message = payload[_FRAME.size :]
    if not compressed:
        return message
    return decompress(message, call.grpc_encoding or "gzip", "grpc-encoding", rules.max_body_bytes)


def framed(message: bytes) -> bytes:
    """The message in a frame, not compressed."""
    return _FRAME.pack(0, len(message)) + message


def infer_body(message: bytes, rules: Rules) -> dict[str, Any]:
    """A ModelInferRequest as a JSON body of the protocol. Raises BadRequest, or NotServed for another model.

    Raw contents become values, and the answer then has raw contents as well, as in other servers.
    """
    body: dict[str, Any] = {"inputs": [], "outputs": [], "parameters": {}}
    raw: list[bytes] = []
    try:
        for number, content in fields(message):
            match number, content:
                case 1, bytes():
                    _same("model_name", _text(content), rules.model_name)
                case 2, bytes():
                    _same("model_version", _text(content), rules.model_version)
                case 3, bytes():
                    body["id"] = _text(content)
                case 4, bytes():
                    body["parameters"] |= _parameter(content)
                case 5, bytes():
                    body["inputs"].append(_input(content))
                case 6, bytes():
                    body["outputs"].append(_output(content))
                case 7, bytes():
                    raw.append(content)
    except (Corrupt, UnicodeDecodeError):
        raise BadRequest("body: not a ModelInferRequest") from None
    if raw:
        _fill(body, raw)
    return body


def predictions_body(message: bytes, rules: Rules) -> dict[str, bytes]:
    """The parameters of a PredictionsRequest. Raises BadRequest, or NotServed for another model."""
    found: dict[str, bytes] = {}
    try:
        for number, content in fields(message):
            match number, content:
                case 1, bytes():
                    _same("model_name", _text(content), rules.model_name)
                case 3, bytes():
                    entry = dict(fields(content))
                    name, value = entry.get(1, b""), entry.get(2, b"")
                    if isinstance(name, bytes) and isinstance(value, bytes):
                        found[_text(name)] = value
    except (Corrupt, UnicodeDecodeError):
        raise BadRequest("body: not a PredictionsRequest") from None
    return found


def parse_message(payload: bytes, rules: Rules, call: Call) -> Request:
    """The request of a ModelInfer message in its frame. Raises BadRequest."""
    return parse_infer(infer_body(unframed(payload, call, rules), rules), rules, call)


def answer_message(
    request: Request, scored: Sequence[Prediction], model_name: str, model_version: str
) -> Answer:
    """ModelInferResponse in its frame."""
    raw = any(output.raw for output in request.outputs)
    made = tensors_of(request, scored)
    message = b"".join(
        (
            put_text(1, model_name),
            put_text(2, model_version),
            put_text(3, request.id or ""),
            *(put_bytes(5, _tensor(tensor, not raw)) for tensor in made),
            *(put_bytes(6, tensors.pack(tensor.datatype, tensor.values)) for tensor in made if raw),
        )
    )
    return Answer(200, framed(message), NO_HEADERS, PROTOBUF)


def answer_predictions(answer: Answer) -> Answer:
    """PredictionResponse around a native answer."""
    return Answer(answer.http_status, framed(put_bytes(1, answer.body)), answer.headers, PROTOBUF)


def refuse_message(http_status: int, error: str, headers: Mapping[str, str]) -> Answer:
    """No message: the gateway converts the HTTP status to a gRPC status and sends the reason with it."""
    reason = quote(error[:LONGEST_REASON], safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
    return Answer(http_status, b"", {**headers, "grpc-message": reason}, PROTOBUF)


def _same(field_name: str, requested: str, ours: str) -> None:
    if requested and ours and requested != ours:
        raise NotServed(f"{field_name}: not served here; {ours} is")


def _text(content: bytes) -> str:
    return content.decode("utf-8")


def _parameter(entry: bytes) -> dict[str, Any]:
    """One entry of a map of InferParameter: bool, int64 or string. Others are ignored: hints for other
    servers.
    """
    found = dict(fields(entry))
    name, value = found.get(1, b""), found.get(2, b"")
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        return {}
    for number, content in fields(value):
        match number, content:
            case 1, int():
                return {_text(name): bool(content)}
            case 2, int():
                return {_text(name): signed(content)}
            case 3, bytes():
                return {_text(name): _text(content)}
    return {}


def _input(content: bytes) -> dict[str, Any]:
    tensor: dict[str, Any] = {"shape": []}
    values: list[Any] = []
    for number, part in fields(content):
        match number, part:
            case 1, bytes():
                tensor["name"] = _text(part)
            case 2, bytes():
                tensor["datatype"] = _text(part)
            case 3, _:
                tensor["shape"] += _integers(part)
            case 5, bytes():
                values += _contents(part)
    # Without values there is no `data`: they may be in raw_input_contents.
    return tensor | ({"data": values} if values else {})


def _contents(content: bytes) -> Iterator[Any]:
    """The values of InferTensorContents: integers and texts; None for other types, which no user_id has."""
    for number, part in fields(content):
        match number, part:
            case ((2 | 3), _):
                yield from _integers(part)
            case 8, bytes():
                try:
                    yield _text(part)
                except UnicodeDecodeError:
                    raise BadRequest("inputs[0].contents.bytes_contents: not UTF-8 text") from None
            case _:
                yield None


def _integers(part: int | bytes) -> Iterator[int]:
    """The values of a repeated field of int64, packed or not."""
    yield from map(signed, varints(part) if isinstance(part, bytes) else (part,))


def _output(content: bytes) -> dict[str, Any]:
    output: dict[str, Any] = {"parameters": {}}
    for number, part in fields(content):
        match number, part:
            case 1, bytes():
                output["name"] = _text(part)
            case 2, bytes():
                output["parameters"] |= _parameter(part)
    return output


def _fill(body: dict[str, Any], raw: Sequence[bytes]) -> None:
    inputs = body["inputs"]
    if len(raw) != len(inputs):
        raise BadRequest(f"raw_input_contents: {len(raw)} tensors, expected {len(inputs)} as in inputs")
    body["parameters"]["binary_data_output"] = True
    for position, (tensor, content) in enumerate(zip(inputs, raw, strict=True)):
        where = f"raw_input_contents[{position}]"
        if "data" in tensor:
            raise BadRequest(f"{where}: inputs[{position}] has contents too; send one of them")
        if tensor.get("datatype") in ("INT64", "BYTES"):
            tensor["data"] = tensors.unpack(tensor["datatype"], content, where)


def _tensor(tensor: Tensor, with_contents: bool) -> bytes:
    described = (
        put_text(1, tensor.name) + put_text(2, tensor.datatype) + put_integers(3, [len(tensor.values)])
    )
    return described + put_bytes(5, _typed(tensor)) if with_contents else described


def _typed(tensor: Tensor) -> bytes:
    match tensor.datatype:
        case "INT64":
            return put_integers(3, tensor.values)
        case "FP64":
            return put_doubles(7, tensor.values)
        case "BYTES":
            return b"".join(put_bytes(8, text.encode()) for text in tensor.values)

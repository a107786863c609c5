"""Open Inference Protocol v2 over HTTP: JSON, and Triton's binary extension.

In the extension the bytes of tensors follow the JSON, and `Inference-Header-Content-Length` is the length of
the JSON. tritonclient and the KServe SDK send numpy arrays in this form.
"""

from collections.abc import Sequence
from typing import Any

from handlers.protocol import json_body, tensors
from handlers.protocol.messages import Answer, BadRequest, Call, Prediction, Request, Rules
from handlers.protocol.open_inference import Tensor, datatype_of, only_input, parse_infer, tensors_of

JSON_LENGTH = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"


def parse_binary(payload: bytes, rules: Rules, call: Call) -> Request:
    """A body that begins with as many bytes of JSON as the header JSON_LENGTH states. Raises BadRequest."""
    length = _length(call.headers[JSON_LENGTH.lower()])
    if not 0 < length <= len(payload):
        raise BadRequest(f"{JSON_LENGTH}: expected a number up to {len(payload)}, the length of the body")
    body = json_body.decode(payload[:length])
    if not isinstance(body, dict):
        raise BadRequest(f"body: expected a JSON object, found {json_body.kind(body)}")
    rest = payload[length:]
    tensor = only_input(body)
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None and not rest:
        return parse_infer(body, rules, call)
    if "data" in tensor:
        raise BadRequest("inputs[0].data: the tensor's values follow the JSON; leave data out")
    if type(size) is not int or size != len(rest):
        raise BadRequest(
            f"inputs[0].parameters.binary_data_size: expected {len(rest)}, the bytes after the JSON"
        )
    values = tensors.unpack(datatype_of(tensor), rest, "inputs[0]")
    return parse_infer({**body, "inputs": [{**tensor, "data": values}]}, rules, call)


def answer_infer(
    request: Request, scored: Sequence[Prediction], model_name: str, model_version: str
) -> Answer:
    """JSON, followed by the tensors that were requested as bytes, in their order."""
    raw = {output.name for output in request.outputs if output.raw}
    binary = []
    outputs = []
    for tensor in tensors_of(request, scored):
        if tensor.name in raw:
            content = tensors.pack(tensor.datatype, tensor.values)
            binary.append(content)
            outputs.append(_described(tensor) | {"parameters": {"binary_data_size": len(content)}})
        else:
            outputs.append(_described(tensor) | {"data": list(tensor.values)})
    body: dict[str, Any] = {"model_name": model_name, "model_version": model_version}
    if request.id is not None:
        body["id"] = request.id
    text = json_body.encode(body | {"outputs": outputs}).encode()
    if not binary:
        return Answer(200, text)
    return Answer(200, b"".join((text, *binary)), {JSON_LENGTH: str(len(text))}, BINARY)


def _length(text: str) -> int:
    """The value of the header JSON_LENGTH; -1 for text that is no length."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1


def _described(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "shape": [len(tensor.values)], "datatype": tensor.datatype}

"""Open Inference Protocol v2, the part that JSON and protobuf share: the request of a body, the tensors of an
answer.

`open_inference_json` and `open_inference_grpc` convert messages to such bodies, and tensors to messages.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from handlers.protocol.fields import check_affordable, countable, tensor_id, wants_of
from handlers.protocol.instances import explained
from handlers.protocol.json_body import encode, jsonable, kind, only, quoted
from handlers.protocol.messages import (
    DEFAULT_REASONS,
    MAX_ID_LENGTH,
    BadRequest,
    Call,
    Output,
    Prediction,
    Request,
    Rules,
    UserId,
    Wants,
)

NAME = "v2"
ALWAYS = ("churn_probability", "prediction", "threshold", "status", "user_id")
"""The tensors of the answer if the request names none, in their order."""
ON_REQUEST = ("features", "reasons", "explanation")
"""Tensors with a JSON text for each customer, since a tensor can contain neither null nor names."""


class Tensor(NamedTuple):
    """A tensor of an answer, with one value for each customer."""

    name: str
    datatype: Literal["INT64", "FP64", "BYTES"]
    values: Sequence[Any]


def parse_infer(body: Mapping[str, Any], rules: Rules, call: Call) -> Request:
    """The request of a body whose only tensor, user_id, has its values as `data`. Raises BadRequest.

    Unknown `parameters` are ignored, since clients add hints for other servers.
    """
    only(body, ("id", "model_name", "model_version", "inputs", "outputs", "parameters"), "body")
    request_id = body.get("id")
    if request_id is not None and (not isinstance(request_id, str) or len(request_id) > MAX_ID_LENGTH):
        raise BadRequest(f"id: expected text of at most {MAX_ID_LENGTH} characters")
    datatype, ids = _customers(only_input(body), rules, call)
    outputs = _outputs(body, call)
    wants = _with_outputs(wants_of(_ours(body), call), outputs)
    check_affordable(wants, len(ids), rules)
    return Request(NAME, ids, (), wants, request_id, datatype, outputs, call.rpc)


def only_input(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensor user_id, not checked yet. Raises BadRequest unless there is exactly one tensor."""
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadRequest(
            "inputs: expected a list of exactly one tensor, user_id; "
            "send feature values of a what-if question in a native or v1 body"
        )
    return inputs[0]


def datatype_of(tensor: Mapping[str, Any]) -> Literal["INT64", "BYTES"]:
    """Raises BadRequest for other types, which no user_id has."""
    match tensor.get("datatype"):
        case "INT64":
            return "INT64"
        case "BYTES":
            return "BYTES"
        case _:
            raise BadRequest("inputs[0].datatype: expected INT64 or BYTES")


def _customers(
    tensor: Mapping[str, Any], rules: Rules, call: Call
) -> tuple[Literal["INT64", "BYTES"], tuple[UserId, ...]]:
    only(tensor, ("name", "shape", "datatype", "data", "parameters"), "inputs[0]")
    if tensor.get("name") != "user_id":
        raise BadRequest("inputs[0].name: expected user_id")
    datatype, data, shape = datatype_of(tensor), tensor.get("data"), tensor.get("shape")
    if data == [] and call.grpc:
        raise BadRequest(
            "inputs[0]: no values; send typed contents (int64_contents or bytes_contents): "
            "TorchServe's own gRPC drops raw_input_contents, the gateway's accepts them"
        )
    if "data" not in tensor:
        raise BadRequest("inputs[0].data: missing; values in shared memory are not supported")
    values = _column(countable(data, "inputs[0].data", rules), shape)
    if not _fits(shape, len(values)):
        n = len(values)
        raise BadRequest(f"inputs[0].shape: expected [{n}] or [{n}, 1], the number of values in data")
    wanted = int if datatype == "INT64" else str
    for position, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise BadRequest(f"inputs[0].data[{position}]: expected {datatype}, found {kind(value)}")
    if call.grpc and datatype == "BYTES":
        values = [_from_base64(value, f"inputs[0].data[{i}]") for i, value in enumerate(values)]
    ids = tuple(tensor_id(value, f"inputs[0].data[{i}]", rules.id_type) for i, value in enumerate(values))
    return datatype, ids


def _column(values: list[Any], shape: Any) -> list[Any]:
    """The values as a flat list, as in the examples of the protocol, or as a list of rows."""
    if (
        isinstance(shape, list)
        and len(shape) == 2
        and all(isinstance(v, list) and len(v) == 1 for v in values)
    ):
        return [value for (value,) in values]
    return values


def _fits(shape: Any, rows: int) -> bool:
    if not isinstance(shape, list) or any(type(size) is not int for size in shape):
        return False
    return shape in ([rows], [rows, 1])


def _from_base64(value: str, field_name: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise BadRequest(f"{field_name}: expected UTF-8 text in bytes_contents") from None


def _ours(body: Mapping[str, Any]) -> dict[str, Any]:
    parameters = body.get("parameters")
    if not isinstance(parameters, dict):
        return {}
    return {name: parameters[name] for name in ("features", "reasons") if name in parameters}


def _outputs(body: Mapping[str, Any], call: Call) -> tuple[Output, ...]:
    """The tensors that the request names, in its order; () if it names none."""
    named = body.get("outputs") or []
    # TorchServe's own gRPC server makes its answer of JSON.
    raw = not call.grpc and _flag(body.get("parameters"), "binary_data_output")
    if not isinstance(named, list):
        raise BadRequest(f"outputs: expected a list of tensors, found {kind(named)}")
    found: dict[str, Output] = {}
    for position, output in enumerate(named):
        where = f"outputs[{position}]"
        if not isinstance(output, dict):
            raise BadRequest(f"{where}: expected an object, found {kind(output)}")
        name, parameters = output.get("name"), output.get("parameters")
        if name not in ALWAYS and name not in ON_REQUEST:
            raise BadRequest(f"{where}.name: expected one of {', '.join((*ALWAYS, *ON_REQUEST))}")
        if name in found:
            raise BadRequest(f"{where}.name: {quoted(name)} is requested twice")
        if isinstance(parameters, dict) and (parameters.keys() & {"classification", "shared_memory_region"}):
            raise BadRequest(f"{where}.parameters: classes and shared memory are not supported")
        found[name] = Output(name, not call.grpc and _flag(parameters, "binary_data", raw))
    if not found and raw:
        return tuple(Output(name, True) for name in (*ALWAYS, *_more(body)))
    return tuple(found.values())


def _more(body: Mapping[str, Any]) -> list[str]:
    """The outputs that `parameters` request without naming them as outputs."""
    return [name for name in ("features", "reasons") if _ours(body).get(name)]


def _flag(parameters: Any, name: str, otherwise: bool = False) -> bool:
    value = parameters.get(name, otherwise) if isinstance(parameters, dict) else otherwise
    return value is True


def _with_outputs(wants: Wants, outputs: Sequence[Output]) -> Wants:
    """`wants`, but with named outputs exactly what these need."""
    if not outputs:
        return wants
    names = {output.name for output in outputs}
    return replace(
        wants,
        features="features" in names,
        reasons=(wants.reasons or DEFAULT_REASONS) if "reasons" in names else 0,
        explanation="explanation" in names,
    )


def tensors_of(request: Request, scored: Sequence[Prediction]) -> list[Tensor]:
    """The tensors of the answer, in the order of the request; `scored`: a prediction for each user id."""
    wants = request.wants
    if request.outputs:
        names = [output.name for output in request.outputs]
    else:
        extra = (wants.features, bool(wants.reasons), wants.explanation)
        names = [*ALWAYS, *(name for name, wanted in zip(ON_REQUEST, extra, strict=True) if wanted)]
    return [_TENSORS[name](request, scored) for name in names]


_TENSORS: Mapping[str, Callable[[Request, Sequence[Prediction]], Tensor]] = {
    "churn_probability": lambda _, scored: Tensor(
        "churn_probability", "FP64", [one.churn_probability for one in scored]
    ),
    "prediction": lambda _, scored: Tensor("prediction", "BYTES", [one.prediction for one in scored]),
    "threshold": lambda _, scored: Tensor("threshold", "FP64", [one.threshold for one in scored]),
    "status": lambda _, scored: Tensor("status", "BYTES", [one.status for one in scored]),
    "user_id": lambda request, _: Tensor("user_id", request.datatype, list(request.user_ids)),
    "features": lambda _, scored: Tensor(
        "features", "BYTES", [encode(jsonable(one.features or {})) for one in scored]
    ),
    "reasons": lambda _, scored: Tensor("reasons", "BYTES", [encode(one.reasons or ()) for one in scored]),
    "explanation": lambda _, scored: Tensor(
        "explanation",
        "BYTES",
        [encode(explained(one.explanation)) for one in scored if one.explanation is not None],
    ),
}

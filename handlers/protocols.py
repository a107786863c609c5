"""The three request bodies that the server speaks, each read into one `Request` and answered in kind.

Native `{"user_id": 123}` (or a list of these), KServe v1 `{"instances": [{"user_id": 123}]}` and Open
Inference Protocol v2 `{"inputs": [{"name": "user_id", ...}]}`. Nothing here does I/O.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from handlers.identity import canonical_id, is_masked

MAX_ID_LENGTH = 256
UserId = int | str


class BadRequest(ValueError):
    """A body that cannot be answered; the message names the field and what belongs there."""


@dataclass(frozen=True)
class Request:
    """Whose churn is asked for, and how the answer has to look."""

    protocol: Literal["native", "native_list", "v1", "v2"]
    user_ids: tuple[UserId, ...]
    """As asked, in the order asked; of the declared type, or masked already."""
    id: str | None = None
    datatype: Literal["INT64", "BYTES"] = "INT64"


@dataclass(frozen=True)
class Prediction:
    churn_probability: float
    prediction: Literal["High Risk", "Low Risk"]
    features: Mapping[str, Any]
    status: Literal["ok", "stale"]


@dataclass(frozen=True)
class Refusal:
    """Why a request, or one customer in it, gets no score."""

    http_status: int
    error: str


@dataclass(frozen=True)
class Answer:
    """What goes back to one caller: JSON bytes and an HTTP status."""

    http_status: int
    body: bytes


Outcome = Prediction | Refusal


def parse(row: Mapping[str, Any], id_type: str, max_instances: int) -> Request:
    """Read one row of a TorchServe batch. Raises BadRequest, and nothing else, whatever it is given."""
    body = _decode(_payload(row))
    if isinstance(body, list):
        return Request("native_list", _instances(body, "body", id_type, max_instances))
    if not isinstance(body, dict):
        raise BadRequest(f"body: expected a JSON object, found {_kind(body)}")
    if "instances" in body:
        _only(body, ("instances", "parameters"), "body")
        return Request("v1", _instances(body["instances"], "instances", id_type, max_instances))
    if "inputs" in body:
        return _parse_v2(body, id_type, max_instances)
    return Request("native", (_instance(body, "", id_type),))


def respond(request: Request, outcomes: Sequence[Outcome], model_name: str, model_version: str) -> Answer:
    """Shape the outcomes, one a user id and in that order, the way the request was made.

    A lone native instance that has no score takes its refusal's status; among several instances (native
    list, v1) a refusal stands at its place; a v2 tensor has no room for one, so that the request is refused.
    """
    refusals = [o for o in outcomes if isinstance(o, Refusal)]
    if request.protocol == "v2":
        if refusals:
            where = next(i for i, o in enumerate(outcomes) if isinstance(o, Refusal))
            return refuse(Refusal(refusals[0].http_status, f"inputs[0].data[{where}]: {refusals[0].error}"))
        return _json(200, _v2_body(request, outcomes, model_name, model_version))
    answers = [
        _instance_answer(user_id, outcome, model_version)
        for user_id, outcome in zip(request.user_ids, outcomes, strict=True)
    ]
    if request.protocol == "native":
        return _json(refusals[0].http_status if refusals else 200, answers[0])
    return _json(200, {"predictions": answers} if request.protocol == "v1" else answers)


def refuse(refusal: Refusal) -> Answer:
    return _json(refusal.http_status, {"error": refusal.error})


def _payload(row: Mapping[str, Any]) -> Any:
    """TorchServe hands over a raw body as `body` or `data`, and form fields or query parameters by name."""
    for name in ("data", "body"):
        if name in row:
            return row[name]
    raise BadRequest("body: missing; send JSON with the header Content-Type: application/json")


def _decode(payload: Any) -> Any:
    if not isinstance(payload, bytes | bytearray | str):
        return payload
    try:
        text = payload if isinstance(payload, str) else bytes(payload).decode("utf-8")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_not_a_number)
    except BadRequest:
        raise
    except UnicodeDecodeError:
        raise BadRequest("body: not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise BadRequest(f"body: not JSON at character {error.pos}: {error.msg}") from None
    except ValueError:
        raise BadRequest("body: not JSON: a number with too many digits") from None
    except RecursionError:
        raise BadRequest("body: nested too deeply") from None


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name, value in pairs:
        if name in body:
            raise BadRequest(f"body: the key {_quoted(name)} stands twice in one object")
        body[name] = value
    return body


def _not_a_number(constant: str) -> NoReturn:
    raise BadRequest(f"body: {constant} is not JSON")


def _parse_v2(body: Mapping[str, Any], id_type: str, max_instances: int) -> Request:
    # clients put their own hints under `parameters` and `outputs`; neither changes a score
    _only(body, ("id", "model_name", "inputs", "outputs", "parameters"), "body")
    request_id = body.get("id")
    if request_id is not None and (not isinstance(request_id, str) or len(request_id) > MAX_ID_LENGTH):
        raise BadRequest(f"id: expected text of at most {MAX_ID_LENGTH} characters")
    inputs = body["inputs"]
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadRequest("inputs: expected a list of exactly one tensor, user_id")
    tensor = inputs[0]
    _only(tensor, ("name", "shape", "datatype", "data", "parameters"), "inputs[0]")
    if tensor.get("name") != "user_id":
        raise BadRequest("inputs[0].name: expected user_id")
    datatype, data, shape = tensor.get("datatype"), tensor.get("data"), tensor.get("shape")
    if datatype not in ("INT64", "BYTES") or not isinstance(datatype, str):
        raise BadRequest("inputs[0].datatype: expected INT64 or BYTES")
    values = _countable(data, "inputs[0].data", max_instances)
    if not _is_shape(shape, len(values)):
        raise BadRequest(f"inputs[0].shape: expected [{len(values)}], the number of values in data")
    wanted = int if datatype == "INT64" else str
    for position, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise BadRequest(f"inputs[0].data[{position}]: expected {datatype}, found {_kind(value)}")
    ids = tuple(_user_id(value, f"inputs[0].data[{i}]", id_type) for i, value in enumerate(values))
    return Request("v2", ids, request_id, "INT64" if datatype == "INT64" else "BYTES")


def _is_shape(shape: Any, rows: int) -> bool:
    return isinstance(shape, list) and len(shape) == 1 and type(shape[0]) is int and shape[0] == rows


def _instances(values: Any, field: str, id_type: str, max_instances: int) -> tuple[UserId, ...]:
    instances = _countable(values, field, max_instances)
    return tuple(_instance(value, f"{field}[{i}]", id_type) for i, value in enumerate(instances))


def _countable(values: Any, field: str, max_instances: int) -> list[Any]:
    if not isinstance(values, list):
        raise BadRequest(f"{field}: expected a list, found {_kind(values)}")
    if not values:
        raise BadRequest(f"{field}: empty; ask for at least one customer")
    if len(values) > max_instances:
        raise BadRequest(f"{field}: {len(values)} customers; at most {max_instances} a request")
    return values


def _instance(value: Any, field: str, id_type: str) -> UserId:
    if not isinstance(value, dict):
        raise BadRequest(f'{field}: expected an object {{"user_id": ...}}, found {_kind(value)}')
    if "user_id" not in value:
        raise BadRequest(f"{_below(field, 'user_id')}: missing")
    _only(value, ("user_id",), field or "body")
    return _user_id(value["user_id"], _below(field, "user_id"), id_type)


def _user_id(value: Any, field: str, id_type: str) -> UserId:
    if is_masked(value):
        return str(value)
    try:
        canonical_id(value, id_type).encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{field}: not valid Unicode text") from None
    except ValueError as error:
        complaint = str(error).removeprefix("user_id ")
        raise BadRequest(f"{field}: {complaint}, found {_kind(value)}") from None
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise BadRequest(f"{field}: does not fit into 64 bits")
    if isinstance(value, str) and len(value) > MAX_ID_LENGTH:
        raise BadRequest(f"{field}: longer than {MAX_ID_LENGTH} characters")
    return value if isinstance(value, int) else str(value)


def _only(body: Mapping[str, Any], known: Sequence[str], field: str) -> None:
    """An unknown key is refused: a misspelled one would otherwise be dropped in silence."""
    for name in body:
        if name not in known:
            raise BadRequest(f"{field}: unknown key {_quoted(str(name))}; known are {', '.join(known)}")


def _below(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name


def _quoted(name: str) -> str:
    return json.dumps(name[:40])


def _kind(value: Any) -> str:
    """What a JSON value is, in JSON's words: the value itself never goes into a message."""
    kinds = {bool: "a boolean", int: "an integer", float: "a number with a fraction", str: "a string"}
    kinds |= {list: "a list", dict: "an object", type(None): "null"}
    return kinds.get(type(value), "something else")


def _instance_answer(user_id: UserId, outcome: Outcome, model_version: str) -> dict[str, Any]:
    if isinstance(outcome, Refusal):
        return {"user_id": user_id, "error": outcome.error, "churn_probability": None}
    return {
        "user_id": user_id,
        "churn_probability": outcome.churn_probability,
        "prediction": outcome.prediction,
        "features": {name: _jsonable(value) for name, value in outcome.features.items()},
        "model_version": model_version,
        "status": outcome.status,
    }


def _v2_body(
    request: Request, outcomes: Sequence[Outcome], model_name: str, model_version: str
) -> dict[str, Any]:
    scored = [o for o in outcomes if isinstance(o, Prediction)]

    def tensor(name: str, datatype: str, data: Sequence[Any]) -> dict[str, Any]:
        return {"name": name, "shape": [len(data)], "datatype": datatype, "data": list(data)}

    body: dict[str, Any] = {"model_name": model_name, "model_version": model_version}
    if request.id is not None:
        body["id"] = request.id
    body["outputs"] = [
        tensor("churn_probability", "FP64", [o.churn_probability for o in scored]),
        tensor("prediction", "BYTES", [o.prediction for o in scored]),
        tensor("status", "BYTES", [o.status for o in scored]),
        tensor("user_id", request.datatype, request.user_ids),
    ]
    return body


def _jsonable(value: Any) -> Any:
    """JSON has no NaN and no infinity: both read as missing."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(http_status: int, body: Any) -> Answer:
    return Answer(http_status, json.dumps(body, allow_nan=False).encode())

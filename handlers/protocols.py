"""The three request bodies that the server speaks, each read into one `Request` and answered in kind.

Native `{"user_id": 123}` (or a list of these), KServe v1 `{"instances": [{"user_id": 123}]}` and Open
Inference Protocol v2 `{"inputs": [{"name": "user_id", ...}]}`. Native and v1 take what-if questions: beside
`user_id`, `"features": {"orders_30d": 0}`. `"parameters": {"features": true, "reasons": 3}` (beside `user_id`
of a lone native body, beside `instances` or `inputs` otherwise) ask for more in the answer. Nothing here does
I/O.
"""

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, NoReturn

from handlers.identity import canonical_id, is_masked

MAX_ID_LENGTH = 256
MAX_TEXT_LENGTH = 1024
MAX_EXPLAINED = 20
"""Customers a request that asks for reasons: each costs up to ten calls of the program, and a batch waits."""
DEFAULT_REASONS = 3
UserId = int | str
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class BadRequest(ValueError):
    """A body that cannot be answered; the message names the field and what belongs there."""


@dataclass(frozen=True)
class Rules:
    """What a body may hold; made once from the bundle and the server's limits."""

    id_type: str
    max_instances: int
    types: Mapping[str, str] = field(default_factory=dict)
    """Stored feature -> its declared type, int64, float64 or string."""
    derived: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Derived feature -> the two stored ones that it is made of."""


class Call(NamedTuple):
    """What the server knows of a request beside its body."""

    request_id: str = ""
    explain: bool = False
    """Asked at an address for explanations."""
    grpc: bool = False
    """TorchServe hands BYTES of a gRPC tensor over in base64."""


@dataclass(frozen=True, slots=True)
class Wants:
    """What goes into the answer beside the score."""

    features: bool = False
    reasons: int = 0
    """How many at most; 0: none."""
    explanation: bool = False
    age: bool = False
    """Of the features: not unasked, since it would make no two answers alike."""


@dataclass(frozen=True, slots=True)
class Request:
    """Whose churn is asked for, and how the answer has to look."""

    protocol: Literal["native", "native_list", "v1", "v2"]
    user_ids: tuple[UserId, ...]
    """As asked, in the order asked; of the declared type, or masked already."""
    overrides: tuple[Mapping[str, Any], ...] = ()
    """Feature values that stand in for the store's, one mapping a user id; empty: none are given."""
    wants: Wants = Wants()
    id: str | None = None
    datatype: Literal["INT64", "BYTES"] = "INT64"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why the score is what it is: log-odds against those of a usual customer."""

    attributions: Mapping[str, float]
    """Stored feature -> how much it adds to the log-odds; derived features count as their parts."""
    base_log_odds: float
    log_odds: float
    additivity_gap: float
    """|base_log_odds + the sum of the attributions - log_odds|."""
    method: Literal["exact", "permutation"]


@dataclass(frozen=True, slots=True)
class Prediction:
    churn_probability: float
    prediction: Literal["High Risk", "Low Risk"]
    threshold: float
    status: str
    """Of the features: ok, stale, degraded or unknown."""
    status_reason: str | None = None
    overridden: tuple[str, ...] = ()
    features: Mapping[str, Any] | None = None
    feature_age_s: float | None = None
    reasons: tuple[str, ...] | None = None
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request, or one customer in it, gets no score."""

    http_status: int
    error: str
    code: str | None = None
    """One word for programs; every 503 has one."""
    retry_after_s: float | None = None


class Answer(NamedTuple):
    """What goes back to one caller: JSON bytes, an HTTP status and headers beside the content type."""

    http_status: int
    body: bytes
    headers: Mapping[str, str] = NO_HEADERS


Outcome = Prediction | Refusal

UNKNOWN_CALL = Call()
PLAIN = Wants()
SHOWN = Wants(features=True)


def parse(row: Mapping[str, Any], rules: Rules, call: Call = UNKNOWN_CALL) -> Request:
    """Read one row of a TorchServe batch. Raises BadRequest, and nothing else, whatever it is given."""
    body = _decode(_payload(row))
    if isinstance(body, list):
        return _request("native_list", _countable(body, "body", rules), "body", rules, _wants({}, call))
    if not isinstance(body, dict):
        raise BadRequest(f"body: expected a JSON object, found {_kind(body)}")
    if "instances" in body:
        _only(body, ("instances", "parameters"), "body")
        instances = _countable(body["instances"], "instances", rules)
        return _request("v1", instances, "instances", rules, _wants(_parameters(body), call))
    if "inputs" in body:
        return _parse_v2(body, rules, call)
    return _parse_native(body, rules, call)


def respond(request: Request, outcomes: Sequence[Outcome], model_name: str, model_version: str) -> Answer:
    """Shape the outcomes, one a user id and in that order, the way the request was made.

    A lone native instance that has no score takes its refusal's status; among several instances (native
    list, v1) a refusal stands at its place; a v2 tensor has no room for one, so that the request is refused.
    """
    if request.protocol == "v2":
        for position, outcome in enumerate(outcomes):
            if isinstance(outcome, Refusal):
                return refuse(outcome, f"inputs[0].data[{position}]: ")
        return _json(200, _v2_body(request, outcomes, model_name, model_version))
    answers = [
        _instance_answer(user_id, outcome, model_version)
        for user_id, outcome in zip(request.user_ids, outcomes, strict=True)
    ]
    if request.protocol == "native":
        lone = outcomes[0]
        if isinstance(lone, Refusal):
            return _json(lone.http_status, answers[0], _headers(lone))
        return _json(200, answers[0])
    if request.protocol == "native_list":
        return _json(200, answers)
    return _json(200, _v1_body(request, answers))


def refuse(refusal: Refusal, where: str = "") -> Answer:
    """A whole request without a score; a 503 says when to ask again."""
    body = {"error": where + refusal.error} | ({"code": refusal.code} if refusal.code else {})
    return _json(refusal.http_status, body, _headers(refusal))


def _headers(refusal: Refusal) -> dict[str, str]:
    if refusal.retry_after_s is None:
        return {}
    return {"Retry-After": str(max(1, math.ceil(refusal.retry_after_s)))}


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
        text = payload if isinstance(payload, str) else payload.decode("utf-8")
        return _DECODER.decode(text)
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


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise BadRequest(f"body: the key {_quoted(doubled)} stands twice in one object")
    return body


def _not_a_number(constant: str) -> NoReturn:
    raise BadRequest(f"body: {constant} is not JSON")


# made once: json.loads and json.dumps build a new one a call as soon as an option is given
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_not_a_number)
_ENCODER = json.JSONEncoder(allow_nan=False)


def _parse_native(body: Mapping[str, Any], rules: Rules, call: Call) -> Request:
    parameters = _parameters(body)
    # a lone customer's features are shown unless the caller says no
    wants = _wants(parameters, call, features=True)
    instance = {name: value for name, value in body.items() if name != "parameters"}
    return _request("native", [instance], "", rules, wants)


def _request(
    protocol: Literal["native", "native_list", "v1"],
    instances: Sequence[Any],
    name: str,
    rules: Rules,
    wants: Wants,
) -> Request:
    lone = protocol == "native"
    user_ids, overrides = [], []
    for position, instance in enumerate(instances):
        where = "" if lone else f"{name}[{position}]"
        if not isinstance(instance, dict):
            raise BadRequest(f'{where}: expected an object {{"user_id": ...}}, found {_kind(instance)}')
        if "user_id" not in instance:
            raise BadRequest(f"{_below(where, 'user_id')}: missing")
        user_ids.append(checked_id(instance["user_id"], where, rules.id_type))
        if len(instance) > 1:
            known = ("user_id", "features", "parameters") if lone else ("user_id", "features")
            _only(instance, known, where or "body")
            overrides.append(_overrides(instance.get("features"), _below(where, "features"), rules))
        else:
            overrides.append({})
    _affordable(wants, len(user_ids))
    return Request(protocol, tuple(user_ids), tuple(overrides) if any(overrides) else (), wants)


def _parse_v2(body: Mapping[str, Any], rules: Rules, call: Call) -> Request:
    # clients put their own hints under `parameters` and `outputs`; what is not ours changes nothing
    _only(body, ("id", "model_name", "inputs", "outputs", "parameters"), "body")
    request_id = body.get("id")
    if request_id is not None and (not isinstance(request_id, str) or len(request_id) > MAX_ID_LENGTH):
        raise BadRequest(f"id: expected text of at most {MAX_ID_LENGTH} characters")
    inputs = body["inputs"]
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadRequest(
            "inputs: expected a list of exactly one tensor, user_id; "
            "feature values for a what-if question have room in a native or v1 body"
        )
    tensor = inputs[0]
    _only(tensor, ("name", "shape", "datatype", "data", "parameters"), "inputs[0]")
    if tensor.get("name") != "user_id":
        raise BadRequest("inputs[0].name: expected user_id")
    datatype, data, shape = tensor.get("datatype"), tensor.get("data"), tensor.get("shape")
    if datatype not in ("INT64", "BYTES") or not isinstance(datatype, str):
        raise BadRequest("inputs[0].datatype: expected INT64 or BYTES")
    if data == [] and call.grpc:
        raise BadRequest(
            "inputs[0]: no values; send typed contents (int64_contents or bytes_contents): "
            "the server drops raw_input_contents"
        )
    values = _countable(data, "inputs[0].data", rules)
    if not _is_shape(shape, len(values)):
        raise BadRequest(f"inputs[0].shape: expected [{len(values)}], the number of values in data")
    wanted = int if datatype == "INT64" else str
    for position, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise BadRequest(f"inputs[0].data[{position}]: expected {datatype}, found {_kind(value)}")
    if call.grpc and datatype == "BYTES":
        values = [_from_base64(value, f"inputs[0].data[{i}]") for i, value in enumerate(values)]
    ids = tuple(_tensor_id(value, f"inputs[0].data[{i}]", rules.id_type) for i, value in enumerate(values))
    parameters = body.get("parameters")
    ours = (
        {name: parameters[name] for name in ("features", "reasons") if name in parameters}
        if isinstance(parameters, dict)
        else {}
    )
    wants = _wants(ours, call)
    _affordable(wants, len(ids))
    return Request("v2", ids, (), wants, request_id, "INT64" if datatype == "INT64" else "BYTES")


def _from_base64(value: str, field_name: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise BadRequest(f"{field_name}: expected UTF-8 text in bytes_contents") from None


def _is_shape(shape: Any, rows: int) -> bool:
    return isinstance(shape, list) and len(shape) == 1 and type(shape[0]) is int and shape[0] == rows


def _parameters(body: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = body.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadRequest(f"parameters: expected an object, found {_kind(parameters)}")
    _only(parameters, ("features", "reasons"), "parameters")
    return parameters


def _wants(parameters: Mapping[str, Any], call: Call, features: bool = False) -> Wants:
    if not parameters and not call.explain:
        return SHOWN if features else PLAIN
    shown = parameters.get("features", features)
    if not isinstance(shown, bool):
        raise BadRequest(f"parameters.features: expected true or false, found {_kind(shown)}")
    asked = parameters.get("reasons", call.explain)
    if isinstance(asked, bool):
        asked = DEFAULT_REASONS if asked else 0
    if not isinstance(asked, int) or not 0 <= asked <= MAX_TEXT_LENGTH:
        raise BadRequest("parameters.reasons: expected true, false or how many at most")
    return Wants(shown, asked, call.explain, age=shown and "features" in parameters)


def _affordable(wants: Wants, customers: int) -> None:
    if (wants.reasons or wants.explanation) and customers > MAX_EXPLAINED:
        raise BadRequest(
            f"parameters.reasons: {customers} customers; reasons for at most {MAX_EXPLAINED} a request"
        )


def _countable(values: Any, field_name: str, rules: Rules) -> list[Any]:
    if not isinstance(values, list):
        raise BadRequest(f"{field_name}: expected a list, found {_kind(values)}")
    if not values:
        raise BadRequest(f"{field_name}: empty; ask for at least one customer")
    if len(values) > rules.max_instances:
        raise BadRequest(f"{field_name}: {len(values)} customers; at most {rules.max_instances} a request")
    return values


def checked_id(value: Any, where: str, id_type: str) -> UserId:
    """The customer that `value` names, which stands in the instance at `where`. Raises BadRequest."""
    if type(value) is int and id_type == "integer" and -(2**63) <= value < 2**63:
        return value  # what nearly every request holds
    return _tensor_id(value, _below(where, "user_id"), id_type)


def _tensor_id(value: Any, field_name: str, id_type: str) -> UserId:
    if is_masked(value):
        return str(value)
    try:
        canonical_id(value, id_type).encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{field_name}: not valid Unicode text") from None
    except ValueError as error:
        complaint = str(error).removeprefix("user_id ")
        raise BadRequest(f"{field_name}: {complaint}, found {_kind(value)}") from None
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise BadRequest(f"{field_name}: does not fit into 64 bits")
    if isinstance(value, str) and len(value) > MAX_ID_LENGTH:
        raise BadRequest(f"{field_name}: longer than {MAX_ID_LENGTH} characters")
    return value if isinstance(value, int) else str(value)


def _overrides(features: Any, field_name: str, rules: Rules) -> dict[str, Any]:
    """Feature values of a what-if question, each of the type that the spec declares; null is allowed."""
    if not isinstance(features, dict):
        raise BadRequest(f"{field_name}: expected an object of feature values, found {_kind(features)}")
    values = {}
    for name, value in features.items():
        where = f"{field_name}.{name[:40]}"
        if name in rules.derived:
            parts = " and ".join(rules.derived[name])
            raise BadRequest(f"{where}: is computed from {parts}; give these instead")
        if name not in rules.types:
            raise BadRequest(f"{field_name}: unknown feature {_quoted(name)}; known are {_some(rules.types)}")
        values[name] = None if value is None else _TYPED[rules.types[name]](value, where)
    return values


def _int64(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"{where}: expected an integer or null, found {_kind(value)}")
    if not -(2**63) <= value < 2**63:
        raise BadRequest(f"{where}: does not fit into 64 bits")
    return value


def _float64(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f"{where}: expected a number or null, found {_kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BadRequest(f"{where}: expected a finite number")
    return number


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{where}: expected text or null, found {_kind(value)}")
    if len(value) > MAX_TEXT_LENGTH:
        raise BadRequest(f"{where}: longer than {MAX_TEXT_LENGTH} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{where}: not valid Unicode text") from None
    return value


_TYPED = {"int64": _int64, "float64": _float64, "string": _string}


def _only(body: Mapping[str, Any], known: Sequence[str], field_name: str) -> None:
    """An unknown key is refused: a misspelled one would otherwise be dropped in silence."""
    for name in body:
        if name not in known:
            raise BadRequest(f"{field_name}: unknown key {_quoted(str(name))}; known are {', '.join(known)}")


def _below(field_name: str, name: str) -> str:
    return f"{field_name}.{name}" if field_name else name


def _quoted(name: str) -> str:
    return json.dumps(name[:40])


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:30]) + (", ..." if len(listed) > 30 else "")


def _kind(value: Any) -> str:
    """What a JSON value is, in JSON's words: the value itself never goes into a message."""
    kinds = {bool: "a boolean", int: "an integer", float: "a number with a fraction", str: "a string"}
    kinds |= {list: "a list", dict: "an object", type(None): "null"}
    return kinds.get(type(value), "something else")


def _instance_answer(user_id: UserId, outcome: Outcome, model_version: str) -> dict[str, Any]:
    if isinstance(outcome, Refusal):
        code = {"code": outcome.code} if outcome.code else {}
        return {"user_id": user_id, "error": outcome.error, **code, "churn_probability": None}
    answer: dict[str, Any] = {
        "user_id": user_id,
        "churn_probability": outcome.churn_probability,
        "prediction": outcome.prediction,
        "threshold": outcome.threshold,
        "model_version": model_version,
        "status": outcome.status,
    }
    if outcome.status_reason is not None:
        answer["status_reason"] = outcome.status_reason
    if outcome.overridden:
        answer["overridden"] = outcome.overridden
    if outcome.features is not None:
        answer["features"] = _jsonable(outcome.features)
    if outcome.feature_age_s is not None:
        answer["feature_age_s"] = outcome.feature_age_s
    if outcome.reasons is not None:
        answer["reasons"] = outcome.reasons
    if outcome.explanation is not None:
        answer["explanation"] = _explained(outcome.explanation)
    return answer


def _explained(explanation: Explanation) -> dict[str, Any]:
    return {
        "base_log_odds": explanation.base_log_odds,
        "log_odds": explanation.log_odds,
        "attributions": dict(explanation.attributions),
        "additivity_gap": explanation.additivity_gap,
        "method": explanation.method,
    }


def _v1_body(request: Request, answers: list[dict[str, Any]]) -> dict[str, Any]:
    if not request.wants.explanation:
        return {"predictions": answers}
    # KServe's :explain names the list `explanations`; a refused customer keeps its place in both
    explanations = [
        {"user_id": answer["user_id"], "error": answer["error"]}
        if "error" in answer
        else {"user_id": answer["user_id"], **answer.pop("explanation"), "reasons": answer["reasons"]}
        for answer in answers
    ]
    return {"predictions": answers, "explanations": explanations}


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
        tensor("threshold", "FP64", [o.threshold for o in scored]),
        tensor("status", "BYTES", [o.status for o in scored]),
        tensor("user_id", request.datatype, request.user_ids),
    ]
    # a tensor has room for neither null nor names: these carry one JSON text a customer
    wants = request.wants
    if wants.features:
        texts = [_text(_jsonable(o.features or {})) for o in scored]
        body["outputs"].append(tensor("features", "BYTES", texts))
    if wants.reasons:
        body["outputs"].append(tensor("reasons", "BYTES", [_text(o.reasons or ()) for o in scored]))
    if wants.explanation:
        texts = [_text(_explained(o.explanation)) for o in scored if o.explanation is not None]
        body["outputs"].append(tensor("explanation", "BYTES", texts))
    return body


def _jsonable(features: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: both read as missing."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in features.items()
    }


def _text(content: Any) -> str:
    return _ENCODER.encode(content)


def _json(http_status: int, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(http_status, _ENCODER.encode(body).encode(), headers or {})

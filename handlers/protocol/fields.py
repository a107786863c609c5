"""Checks the fields that all protocols share: customers, their number, feature values and options."""

import math
from collections.abc import Mapping
from typing import Any

from handlers.identity import canonical_id, is_masked
from handlers.protocol.json_body import below, kind, only, quoted, some
from handlers.protocol.messages import (
    DEFAULT_REASONS,
    MAX_ID_LENGTH,
    MAX_TEXT_LENGTH,
    PLAIN,
    SHOWN,
    BadRequest,
    Call,
    Rules,
    UserId,
    Wants,
)


def checked_id(value: Any, where: str, id_type: str) -> UserId:
    """The user_id `value` of the instance at `where`. Raises BadRequest."""
    if type(value) is int and id_type == "integer" and -(2**63) <= value < 2**63:
        return value  # as in most requests
    return tensor_id(value, below(where, "user_id"), id_type)


def tensor_id(value: Any, field_name: str, id_type: str) -> UserId:
    """The user_id `value` of the field. Raises BadRequest."""
    if is_masked(value):
        return str(value)
    try:
        canonical_id(value, id_type).encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{field_name}: not valid Unicode text") from None
    except ValueError as error:
        complaint = str(error).removeprefix("user_id ")
        raise BadRequest(f"{field_name}: {complaint}, found {kind(value)}") from None
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise BadRequest(f"{field_name}: does not fit into 64 bits")
    if isinstance(value, str) and len(value) > MAX_ID_LENGTH:
        raise BadRequest(f"{field_name}: longer than {MAX_ID_LENGTH} characters")
    return value if isinstance(value, int) else str(value)


def countable(values: Any, field_name: str, rules: Rules) -> list[Any]:
    """`values`, if they are a list of permitted length. Raises BadRequest."""
    if not isinstance(values, list):
        raise BadRequest(f"{field_name}: expected a list, found {kind(values)}")
    if not values:
        raise BadRequest(f"{field_name}: empty; request at least one customer")
    if len(values) > rules.max_instances:
        raise BadRequest(f"{field_name}: {len(values)} customers; at most {rules.max_instances} a request")
    return values


def parameters_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """`parameters` of a native or v1 body. Raises BadRequest."""
    parameters = body.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadRequest(f"parameters: expected an object, found {kind(parameters)}")
    only(parameters, ("features", "reasons"), "parameters")
    return parameters


def wants_of(parameters: Mapping[str, Any], call: Call, features: bool = False) -> Wants:
    """What the answer contains beside the score; `features` is their default. Raises BadRequest."""
    if not parameters and not call.explain:
        return SHOWN if features else PLAIN
    shown = parameters.get("features", features)
    if not isinstance(shown, bool):
        raise BadRequest(f"parameters.features: expected true or false, found {kind(shown)}")
    reasons = parameters.get("reasons", call.explain)
    if isinstance(reasons, bool):
        reasons = DEFAULT_REASONS if reasons else 0
    if not isinstance(reasons, int) or not 0 <= reasons <= MAX_TEXT_LENGTH:
        raise BadRequest("parameters.reasons: expected true, false or the largest number of reasons")
    return Wants(shown, reasons, call.explain, age=shown and "features" in parameters)


def check_affordable(wants: Wants, customers: int, rules: Rules) -> None:
    """Raises BadRequest if reasons or explanations are requested for too many customers."""
    if (wants.reasons or wants.explanation) and customers > rules.max_explained:
        raise BadRequest(
            f"parameters.reasons: {customers} customers; reasons for at most {rules.max_explained} a request"
        )


def feature_values(features: Any, field_name: str, rules: Rules) -> dict[str, Any]:
    """Feature values of a what-if question, each of its declared type or None. Raises BadRequest."""
    if not isinstance(features, dict):
        raise BadRequest(f"{field_name}: expected an object of feature values, found {kind(features)}")
    values = {}
    for name, value in features.items():
        where = f"{field_name}.{name[:40]}"
        if name in rules.derived:
            parts = " and ".join(rules.derived[name])
            raise BadRequest(f"{where}: is computed from {parts}; give these instead")
        if name not in rules.types:
            raise BadRequest(f"{field_name}: unknown feature {quoted(name)}; known are {some(rules.types)}")
        values[name] = None if value is None else _TYPED[rules.types[name]](value, where)
    return values


def _int64(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"{where}: expected an integer or null, found {kind(value)}")
    if not -(2**63) <= value < 2**63:
        raise BadRequest(f"{where}: does not fit into 64 bits")
    return value


def _float64(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f"{where}: expected a number or null, found {kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BadRequest(f"{where}: expected a finite number")
    return number


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{where}: expected text or null, found {kind(value)}")
    if len(value) > MAX_TEXT_LENGTH:
        raise BadRequest(f"{where}: longer than {MAX_TEXT_LENGTH} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{where}: not valid Unicode text") from None
    return value


_TYPED = {"int64": _int64, "float64": _float64, "string": _string}

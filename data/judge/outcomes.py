"""Describes the results of Great Expectations (GE) for users, without personal values."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from great_expectations.core.expectation_validation_result import ExpectationValidationResult

from data.judge.expectations import columns_of

Row = dict[str, Any]
"""One expectation: what was expected, of which column, whether it holds, what was found."""
_NOT_SHOWN = ("batch_id", "condition_parser")


def failed(outcomes: Sequence[Row]) -> list[Row]:
    """The expectations that do not hold, as a table for users."""
    shown = ("expectation", "column", "expected", "found")
    return [{name: outcome[name] for name in shown} for outcome in outcomes if not outcome["success"]]


def outcome_of(result: ExpectationValidationResult, condition: object, schema: pa.Schema) -> Row:
    config = config_of(result)
    arguments = {k: v for k, v in config.kwargs.items() if k not in _NOT_SHOWN and v is not None}
    if condition:
        arguments["row_condition"] = condition
    columns = columns_of(arguments)
    expected = {
        k: v for k, v in arguments.items() if k not in ("column", "column_A", "column_B", "column_list")
    }
    return {
        "expectation": config.type,
        "column": ", ".join(columns),
        "expected": ", ".join(f"{name}={_text(value)}" for name, value in expected.items()),
        "success": bool(result.success),
        "found": _found(result, columns, schema),
    }


def _found(result: ExpectationValidationResult, columns: list[str], schema: pa.Schema) -> str:
    if absent := [c for c in columns if c not in schema.names]:
        return f"no column {absent[0]}; there are {', '.join(schema.names)}"
    complaint = exception_of(result.exception_info)
    if not complaint and "_type" in config_of(result).type and "observed_value" in result.result:
        return f"the values are of type {_text(result.result['observed_value'])}"
    if not _may_show(columns, schema):
        kinds = ", ".join(str(schema.field(c).type) for c in columns)
        complaint = complaint and f"not with columns of type {kinds}"
    if complaint:
        return f"cannot be judged: {complaint}"
    return _counted(result.result, _may_show(columns, schema)) or (
        "as expected" if result.success else "not as expected"
    )


def _counted(measured: Mapping[str, Any], may_show: bool) -> str:
    """The measured value as text, for each form of GE's results; empty when none may be shown."""
    if "element_count" in measured:
        count = measured["unexpected_count"]
        if not count:
            return ""
        found = f"{count:,} of {measured['element_count']:,} values ({measured['unexpected_percent']:.3g} %)"
        examples = measured.get("partial_unexpected_list", [])
        return f"{found}, such as {_text(examples[0])}" if examples and may_show else found
    if "observed_value" in measured and may_show:
        return _text(measured["observed_value"])
    return ""


def _may_show(columns: list[str], schema: pa.Schema) -> bool:
    """Whether values may be shown: numbers and times, but not texts and identifiers, which can be
    personal."""
    return all(c != "user_id" and not pa.types.is_string(schema.field(c).type) for c in columns)


def exception_of(info: Mapping[str, Any]) -> str:
    """The message of the first exception. GE returns one flat record, or one for each failed metric."""
    records = [info] if "raised_exception" in info else list(info.values())
    for record in records:
        if record["raised_exception"]:
            return " ".join(str(record["exception_message"]).split())
    return ""


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"({', '.join(_text(one) for one in value)})"
    if isinstance(value, np.generic):
        value = value.item()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def config_of(result: ExpectationValidationResult) -> Any:
    assert result.expectation_config is not None
    return result.expectation_config

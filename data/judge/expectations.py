"""Reads the configured expectations, adds the mandatory ones, and builds them with Great Expectations."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from difflib import get_close_matches
from typing import Any

import pyarrow as pa
from great_expectations.exceptions.exceptions import ExpectationNotFoundError
from great_expectations.expectations.registry import (
    get_expectation_impl,
    list_registered_expectation_implementations,
)
from pydantic import ValidationError
from pydantic.v1 import ValidationError as ValidationErrorV1

from core.errors import DataError

NO_COLUMN = ("",)
"""In place of the columns of an expectation on the number of rows."""


@dataclass(frozen=True)
class Expectation:
    """One expectation on records of a known schema."""

    kind: str
    """Its name in Great Expectations, for example expect_column_values_to_not_be_null."""
    columns: tuple[str, ...]
    """The columns that it reads; none for an expectation on the names of columns, or NO_COLUMN."""
    condition: object
    """Its `row_condition`, if any."""
    built: Any


def read_expectations(
    configured: Sequence[Mapping[str, Any]], schema: pa.Schema, as_of: datetime
) -> list[Expectation]:
    """The mandatory expectations, then those of the config, without optional ones on absent columns.

    Raises DataError when an expectation is unknown or its arguments are invalid.
    """
    names = schema.names
    mandatory = mandatory_expectations(names, as_of)
    further = [e for e in configured if e not in mandatory and not _is_skipped(e, names)]
    return [
        Expectation(str(e.get("type")), _columns_read(e, names), e.get("row_condition"), _built(e, schema))
        for e in (*mandatory, *further)
    ]


def mandatory_expectations(columns: Sequence[str], as_of: datetime) -> list[dict[str, Any]]:
    """The mandatory expectations, which features and labels require independently of the config."""
    moment = "timestamp" if "timestamp" in columns else "event_timestamp"
    checks: list[dict[str, Any]] = [
        {"type": "expect_column_values_to_not_be_null", "column": "user_id"},
        {
            "type": "expect_column_values_to_be_between",
            "column": moment,
            "max_value": as_of,
            "strict_max": True,
        },
    ]
    if "target" in columns:
        checks.append({"type": "expect_column_values_to_be_in_set", "column": "target", "value_set": [0, 1]})
    return checks


def _is_skipped(expectation: Mapping[str, Any], columns: Sequence[str]) -> bool:
    if not expectation.get("optional"):
        return False
    condition = str(expectation.get("row_condition") or "")
    conditioned = re.findall(r"""col\(["'](.+?)["']\)""", condition) or re.findall(r"^\W*(\w+)", condition)
    return not {*columns_of(expectation), *conditioned} <= set(columns)


def _columns_read(expectation: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    condition = str(expectation.get("row_condition") or "")
    mentioned = {name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", condition)}
    needed = {*columns_of(expectation), *mentioned}
    if not needed and "column" not in str(expectation.get("type")):
        return NO_COLUMN
    if str(expectation.get("type")) == "expect_column_to_exist":
        return ()
    return tuple(name for name in names if name in needed)


def columns_of(arguments: Mapping[str, Any]) -> list[str]:
    """The columns in the arguments of an expectation."""
    single = [arguments[name] for name in ("column", "column_A", "column_B") if name in arguments]
    return [*single, *arguments.get("column_list", ())]


def _built(expectation: Mapping[str, Any], schema: pa.Schema) -> Any:
    arguments = {name: value for name, value in expectation.items() if name not in ("type", "optional")}
    kind = str(expectation.get("type"))
    try:
        implementation = get_expectation_impl(kind)
    except ExpectationNotFoundError:
        close = get_close_matches(kind, list_registered_expectation_implementations(), n=1)
        meant = f"; did you mean {close[0]}?" if close else "; see the gallery of Great Expectations"
        raise DataError(f"data.expectations: no expectation is called {kind}{meant}") from None
    if any(pa.types.is_string(schema.field(c).type) for c in columns_of(arguments) if c in schema.names):
        arguments = {n: _as_text_type(v) if n in ("type_", "type_list") else v for n, v in arguments.items()}
    if any(pa.types.is_timestamp(schema.field(c).type) for c in columns_of(arguments) if c in schema.names):
        arguments = {name: _as_moment(value) for name, value in arguments.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about the library's own models
            return implementation(**arguments)
    except (ValidationError, ValidationErrorV1, TypeError, ValueError) as error:
        raise DataError(f"data.expectations: {kind}: {_complaint(error)}; correct its arguments") from None


def _as_text_type(value: Any) -> Any:
    """The current name of pandas' type for text columns, which has had three names."""
    if isinstance(value, list | tuple):
        return [_as_text_type(one) for one in value]
    return "str" if value in ("object", "string") else value


def _complaint(error: Exception) -> str:
    if isinstance(error, ValidationError | ValidationErrorV1):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return " ".join(str(error).split())


def _as_moment(value: Any) -> Any:
    """Dates of a YAML file as times that are comparable with a column of UTC times."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value

"""Checks the expectations of the config, and the mandatory ones, with Great Expectations (GE)."""

import gc
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from difflib import get_close_matches
from typing import Any

import great_expectations as gx
import numpy as np
import pandas as pd
import pyarrow as pa
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.exceptions.exceptions import ExpectationNotFoundError
from great_expectations.expectations.registry import (
    get_expectation_impl,
    list_registered_expectation_implementations,
)
from pydantic import ValidationError
from pydantic.v1 import ValidationError as ValidationErrorV1

from core.errors import DataError

Row = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """Rows to check. Only the columns that an expectation reads are in memory at a time."""

    schema: pa.Schema
    rows: int
    tables: Callable[[Sequence[str]], Iterator[pa.Table]]
    """Yields the columns of these names in batches of rows. Identifiers are codes, equal for equal ones."""
    all_rows: int | None = None
    """For a delivery: the rows of the whole table, on which expectations on the row count are checked."""


def validate(
    records: pa.Table | Judged, expectations: Sequence[Mapping[str, Any]], as_of: datetime
) -> list[Row]:
    """One row per expectation: what was expected, of which column, whether it holds, what was found.

    Rows with a time at or after `as_of` fail. No result shows an identifier. Raises DataError when an
    expectation is unknown or its arguments are invalid.
    """
    if isinstance(records, pa.Table):
        table = records
        records = Judged(table.schema, table.num_rows, lambda needed: iter([table.select(needed)]))
    names = records.schema.names
    mandatory = mandatory_expectations(names, as_of)
    configured = [e for e in expectations if e not in mandatory and not _skipped(e, names)]
    every = [*mandatory, *configured]
    built = [_built(e, records.schema) for e in every]
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, expectation in enumerate(every):
        groups.setdefault(_needed(expectation, names), []).append(number)
    outcomes: dict[int, Row] = {}
    with _older_objects_exempt():
        for needed, numbers in groups.items():
            by_row = [n for n in numbers if _config_type(every[n]) in BY_ROW]
            for chosen, frames in _passes(needed, numbers, by_row, records):
                passes = [_run([built[n] for n in chosen], frame) for frame in frames]
                for number, results in zip(chosen, zip(*passes, strict=True), strict=True):
                    outcomes[number] = _outcome(
                        _merged(list(results)), every[number].get("row_condition"), records.schema
                    )
    return [outcomes[number] for number in range(len(every))]


BY_ROW = frozenset(
    {
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_be_null",
        "expect_column_values_to_be_between",
        "expect_column_values_to_be_in_set",
        "expect_column_values_to_not_be_in_set",
        "expect_column_values_to_match_regex",
        "expect_column_values_to_not_match_regex",
    }
)
"""Expectations that check each row separately, so that batches of rows give the same counts as all rows."""
ROWS_AT_ONCE = 4_000_000
"""Rows of a batch. It is limited because Great Expectations makes several copies of the rows."""


def _config_type(expectation: Mapping[str, Any]) -> str:
    return str(expectation.get("type"))


def _passes(
    needed: tuple[str, ...], numbers: list[int], by_row: list[int], records: Judged
) -> Iterator[tuple[list[int], Iterator[pd.DataFrame]]]:
    """Groups of expectations to check together, each with the frames on which they are checked in turn."""
    if not needed or needed == NO_COLUMN:
        yield numbers, iter([_without_cells(needed, records)])
        return
    rest = [number for number in numbers if number not in by_row]
    if by_row:
        yield by_row, map(_to_pandas, _regrouped(records.tables(needed)))
    if rest:
        yield rest, iter([_to_pandas(pa.concat_tables(records.tables(needed)))])


def _regrouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in batches of about ROWS_AT_ONCE rows; at least one table."""
    waiting: list[pa.Table] = []
    for table in tables:
        for start in range(0, max(table.num_rows, 1), ROWS_AT_ONCE):
            waiting.append(table.slice(start, ROWS_AT_ONCE))
            if sum(part.num_rows for part in waiting) >= ROWS_AT_ONCE:
                yield pa.concat_tables(waiting)
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _merged(results: list[ExpectationValidationResult]) -> ExpectationValidationResult:
    """Combine the results of batches into the result for all rows."""
    first = results[0]
    if failing := [r for r in results if _exception(r.exception_info)]:
        return failing[0]
    if len(results) == 1:
        return first
    total = {n: sum(r.result[n] for r in results) for n in ("element_count", "unexpected_count")}
    judged = total["element_count"] - sum(r.result.get("missing_count") or 0 for r in results)
    examples = [one for r in results for one in r.result.get("partial_unexpected_list", [])]
    percent = 100 * total["unexpected_count"] / judged if judged else 0.0
    first.result.update(total, unexpected_percent=percent, partial_unexpected_list=examples[:20])
    mostly = _config(first).kwargs.get("mostly") or 1.0
    first.success = total["unexpected_count"] <= (1 - mostly) * judged + 1e-9
    return first


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


def failed(outcomes: Sequence[Row]) -> list[Row]:
    """The expectations that do not hold, as a table for users."""
    shown = ("expectation", "column", "expected", "found")
    return [{name: outcome[name] for name in shown} for outcome in outcomes if not outcome["success"]]


def _skipped(expectation: Mapping[str, Any], columns: Sequence[str]) -> bool:
    if not expectation.get("optional"):
        return False
    condition = str(expectation.get("row_condition") or "")
    conditioned = re.findall(r"""col\(["'](.+?)["']\)""", condition) or re.findall(r"^\W*(\w+)", condition)
    return not {*_columns_of(expectation), *conditioned} <= set(columns)


NO_COLUMN = ("",)
"""Marks an expectation on the number of rows, which reads no column."""


def _needed(expectation: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """The columns that an expectation reads; none for an expectation on the names of columns."""
    condition = str(expectation.get("row_condition") or "")
    mentioned = {name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", condition)}
    needed = {*_columns_of(expectation), *mentioned}
    if not needed and "column" not in str(expectation.get("type")):
        return NO_COLUMN
    if str(expectation.get("type")) == "expect_column_to_exist":
        return ()
    return tuple(name for name in names if name in needed)


def _columns_of(arguments: Mapping[str, Any]) -> list[str]:
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
    if any(pa.types.is_string(schema.field(c).type) for c in _columns_of(arguments) if c in schema.names):
        arguments = {n: _as_text_type(v) if n in ("type_", "type_list") else v for n, v in arguments.items()}
    if any(pa.types.is_timestamp(schema.field(c).type) for c in _columns_of(arguments) if c in schema.names):
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


@contextmanager
def _older_objects_exempt() -> Iterator[None]:
    """The garbage collector passes over everything that was imported. That takes 0.2 s after each pass, so
    older objects are exempt.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _run(suite: list[Any], frame: pd.DataFrame) -> list[ExpectationValidationResult]:
    """Check the suite in memory, without progress bars and without usage statistics for GE's server."""
    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    asset = context.data_sources.add_pandas("records").add_dataframe_asset("records")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, expectation in enumerate(suite):
            expectation.meta = {**(expectation.meta or {}), "number": number}
        outcome = batch.validate(gx.ExpectationSuite("records", expectations=suite), result_format="BASIC")
    del frame, batch, asset, context
    gc.collect()  # the library's objects form reference cycles that hold the rows in memory
    # GE sorts by column, but users expect the order of their config
    return sorted(outcome.results, key=lambda result: _config(result).meta["number"])


def _config(result: ExpectationValidationResult) -> Any:
    assert result.expectation_config is not None
    return result.expectation_config


def _without_cells(needed: tuple[str, ...], records: Judged) -> pd.DataFrame:
    """A frame without values, for expectations on the number of rows or on the names of columns."""
    if needed == NO_COLUMN:
        rows = records.rows if records.all_rows is None else records.all_rows
        return pd.DataFrame(index=pd.RangeIndex(rows))
    return pd.DataFrame(columns=records.schema.names)


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    text = pd.StringDtype("pyarrow", na_value=np.nan)
    frame: pd.DataFrame = table.to_pandas(types_mapper={pa.string(): text}.get, split_blocks=True)
    return frame


def _outcome(result: ExpectationValidationResult, condition: object, schema: pa.Schema) -> Row:
    config = _config(result)
    arguments = {k: v for k, v in config.kwargs.items() if k not in _NOT_SHOWN and v is not None}
    if condition:
        arguments["row_condition"] = condition
    columns = _columns_of(arguments)
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


_NOT_SHOWN = ("batch_id", "condition_parser")


def _found(result: ExpectationValidationResult, columns: list[str], schema: pa.Schema) -> str:
    if absent := [c for c in columns if c not in schema.names]:
        return f"no column {absent[0]}; there are {', '.join(schema.names)}"
    complaint = _exception(result.exception_info)
    if not complaint and "_type" in _config(result).type and "observed_value" in result.result:
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


def _exception(info: Mapping[str, Any]) -> str:
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

"""Checks the expectations of the config, and the mandatory ones, with Great Expectations (GE)."""

import gc
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import great_expectations as gx
import numpy as np
import pandas as pd
import pyarrow as pa
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig

from data.judge.expectations import NO_COLUMN, Expectation, read_expectations
from data.judge.judged import Judged
from data.judge.outcomes import Row, config_of, exception_of, outcome_of

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
    every = read_expectations(expectations, records.schema, as_of)
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, expectation in enumerate(every):
        groups.setdefault(expectation.columns, []).append(number)
    outcomes: dict[int, Row] = {}
    with _older_objects_exempt():
        for columns, numbers in groups.items():
            for chosen, frames in _passes(columns, numbers, every, records):
                passes = [_run([every[n].built for n in chosen], frame) for frame in frames]
                for number, results in zip(chosen, zip(*passes, strict=True), strict=True):
                    result = _merged(list(results))
                    outcomes[number] = outcome_of(result, every[number].condition, records.schema)
    return [outcomes[number] for number in range(len(every))]


def _passes(
    columns: tuple[str, ...], numbers: list[int], every: Sequence[Expectation], records: Judged
) -> Iterator[tuple[list[int], Iterator[pd.DataFrame]]]:
    """Groups of expectations to check together, each with the frames on which they are checked in turn."""
    if not columns or columns == NO_COLUMN:
        yield numbers, iter([_without_cells(columns, records)])
        return
    by_row = [number for number in numbers if every[number].kind in BY_ROW]
    rest = [number for number in numbers if number not in by_row]
    if by_row:
        yield by_row, map(_to_pandas, _regrouped(records.tables(columns)))
    if rest:
        yield rest, iter([_to_pandas(pa.concat_tables(records.tables(columns)))])


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
    if failing := [r for r in results if exception_of(r.exception_info)]:
        return failing[0]
    if len(results) == 1:
        return first
    total = {n: sum(r.result[n] for r in results) for n in ("element_count", "unexpected_count")}
    judged = total["element_count"] - sum(r.result.get("missing_count") or 0 for r in results)
    examples = [one for r in results for one in r.result.get("partial_unexpected_list", [])]
    percent = 100 * total["unexpected_count"] / judged if judged else 0.0
    first.result.update(total, unexpected_percent=percent, partial_unexpected_list=examples[:20])
    mostly = config_of(first).kwargs.get("mostly") or 1.0
    first.success = total["unexpected_count"] <= (1 - mostly) * judged + 1e-9
    return first


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
    return sorted(outcome.results, key=lambda result: config_of(result).meta["number"])


def _without_cells(columns: tuple[str, ...], records: Judged) -> pd.DataFrame:
    """A frame without values, for expectations on the number of rows or on the names of columns."""
    if columns == NO_COLUMN:
        rows = records.rows if records.all_rows is None else records.all_rows
        return pd.DataFrame(index=pd.RangeIndex(rows))
    return pd.DataFrame(columns=records.schema.names)


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    text = pd.StringDtype("pyarrow", na_value=np.nan)
    frame: pd.DataFrame = table.to_pandas(types_mapper={pa.string(): text}.get, split_blocks=True)
    return frame

"""Expectations that the sample meets, with margins for the next delivery."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from churn.init.columns import Column
from churn.init.features import Feature

NEARLY_ALL = 0.99
SMALL_SET = 12


def of_table(columns: Sequence[Column], features: Sequence[Feature], rows: int) -> list[dict[str, Any]]:
    """For a labelled table: ranges of numbers, sets of small categories, the number of rows."""
    by_name = {column.name: column for column in columns}
    expected: list[dict[str, Any]] = [_not_null("user_id"), _not_null("target"), row_count(rows)]
    for feature in features:
        column = by_name[feature.column]
        if "sql" in feature.line and column.percent:
            continue
        if feature.line["dtype"] != "string" and column.numeric and column.dates is None:
            expected.append(_between(feature.alias or column.name, column.numbers))
        elif feature.line["dtype"] == "string" and column.distinct <= SMALL_SET and column.stored_as_text:
            expected.append(
                {
                    "type": "expect_column_values_to_be_in_set",
                    "column": feature.alias or column.name,
                    "value_set": sorted(column.values),
                    "mostly": 0.95,
                }
            )
    return expected


def of_log(amounts: NDArray[np.float64] | None, rows: int) -> list[dict[str, Any]]:
    """For a log: amounts within a wide range, the number of purchases."""
    expected = [_not_null("user_id"), _not_null("amount"), row_count(rows)]
    if amounts is not None and np.isfinite(amounts).any():
        expected.append(_between("amount", amounts))
    return expected


def row_count(rows: int) -> dict[str, Any]:
    return {"type": "expect_table_row_count_to_be_between", "min_value": max(1, rows // 2)}


def _not_null(column: str) -> dict[str, Any]:
    return {"type": "expect_column_values_to_not_be_null", "column": column}


def _between(name: str, numbers: NDArray[np.float64]) -> dict[str, Any]:
    """The range of the sample, extended by its span on both sides, but not across 0."""
    known = numbers[np.isfinite(numbers)]
    low, high = float(known.min()), float(known.max())
    span = max(high - low, abs(high), 1.0)
    return {
        "type": "expect_column_values_to_be_between",
        "column": name,
        "min_value": 0 if low >= 0 else _outwards(low - span, math.floor),
        "max_value": 0 if high <= 0 and low < 0 else _outwards(high + span, math.ceil),
        "mostly": NEARLY_ALL,
    }


def _outwards(value: float, rounded: Any) -> int:
    """The value, rounded to two significant digits."""
    if value == 0:
        return 0
    step = 10 ** max(0, math.floor(math.log10(abs(value))) - 1)
    return int(rounded(value / step) * step)

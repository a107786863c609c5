"""Cells as text, with null for missing ones."""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

EXACT_FLOAT = 2**53
"""A float64 represents every integer up to this one exactly."""


def texts(column: pa.ChunkedArray, missing: Collection[str] = ()) -> pa.ChunkedArray:
    """The text as written [rows]. Blanks and the words of `missing` are null. A whole float is written
    without a point and an exponent. Raises ArrowNotImplementedError for nested types."""
    if is_number(column.type):
        return _number_texts(without_numbers(column, missing))
    text = column if pa.types.is_string(column.type) else column.cast(pa.string())
    trimmed = pc.utf8_trim_whitespace(text)
    absent = pc.equal(trimmed, "")
    if missing:
        absent = pc.or_(absent, pc.is_in(trimmed, pa.array(sorted(missing), pa.string())))
    return pc.if_else(absent, None, text)


def without_numbers(column: pa.ChunkedArray, missing: Collection[str]) -> pa.ChunkedArray:
    """The column of numbers, with null where a number is one of `missing`, such as -999."""
    values = pa.array([value for word in missing if (value := _number(word)) is not None], pa.float64())
    if not len(values):
        return column
    return pc.if_else(pc.is_in(column.cast(pa.float64(), safe=False), values), None, column)


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _number_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_floating(column.type):
        return column.cast(pa.string())
    column = column.cast(pa.float64())
    column = pc.if_else(pc.is_nan(column), None, column)
    whole = pc.and_(pc.equal(column, pc.floor(column)), pc.less_equal(pc.abs(column), float(EXACT_FLOAT)))
    digits = pc.if_else(whole, column, None).cast(pa.int64()).cast(pa.string())
    return pc.coalesce(digits, column.cast(pa.string()))


def is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def matching(text: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    return pc.if_else(pc.match_substring_regex(text, pattern), text, None)

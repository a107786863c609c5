"""Parses columns as a source wrote them into numbers, times and identifiers.

Every function takes a column [rows] of any Arrow type and returns a column [rows], without a Python loop over
rows. A value that is missing or cannot be read is null. The notation is in data/cell/notation.py.
"""

from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import DataError
from data.cell.moments import MOMENT, moments
from data.cell.notation import Notation
from data.cell.numbers import numbers, numeric_texts
from data.cell.text import EXACT_FLOAT, is_number, matching, texts, without_numbers

__all__ = [
    "MOMENT",
    "Notation",
    "identifiers",
    "inferred",
    "moments",
    "numbers",
    "numeric_texts",
    "texts",
    "typed",
]

PLAIN = Notation()
WHOLE_ID = r"^[+-]?\d+(\.0*)?$"
"""Also matches `7.0`, as a spreadsheet or a float column writes 7."""
WHOLE = r"^[+-]?\d+$"
LEADING_ZERO = r"^[+-]?0\d"
LARGEST, SMALLEST = "9223372036854775807", "9223372036854775808"
"""Digits of the largest and the smallest int64."""


def identifiers(
    column: pa.ChunkedArray, id_type: Literal["integer", "string"], notation: Notation = PLAIN
) -> pa.ChunkedArray:
    """Parse identifiers as int64 or string. Strings are not changed, so requests have to spell them
    identically.

    Raises DataError for floats beyond 2**53, which have already lost digits of the identifier.
    """
    _check_digits(column)
    if id_type == "string":
        return texts(column, notation.missing)
    return _integers(column, notation)


def typed(column: pa.ChunkedArray, kind: str, notation: Notation = PLAIN) -> pa.ChunkedArray:
    """Parse as `int64`, `float64` or `string`. A number with a fraction is unreadable as int64. To
    distinguish missing from unreadable numbers, use `numeric_texts`, which is null for missing ones only."""
    if kind == "string":
        return texts(column, notation.missing)
    value = numbers(column, notation)
    if kind == "float64":
        return value
    exact = pc.and_(pc.equal(value, pc.floor(value)), pc.less(pc.abs(value), float(EXACT_FLOAT)))
    return pc.coalesce(_integers(column, notation), pc.if_else(exact, value, None).cast(pa.int64()))


def inferred(column: pa.ChunkedArray, notation: Notation = PLAIN) -> pa.ChunkedArray:
    """Parse as int64 or float64 when every value that is not missing is a number, else as string.

    A number that would lose digits makes the column text: 01067, or 20 digits. Integers with missing values
    are float64.
    """
    if pa.types.is_integer(column.type) and column.null_count == 0 and column.type != pa.uint64():
        column = without_numbers(column, notation.missing)
        return numbers(column, notation) if column.null_count else column.cast(pa.int64())
    if is_number(column.type):
        return numbers(column, notation)
    text, present = texts(column, notation.missing), numeric_texts(column, notation)
    value = numbers(present, notation)
    if value.null_count > present.null_count or present.null_count == len(text):
        return text
    trimmed = pc.utf8_trim_whitespace(present)
    if pc.any(pc.match_substring_regex(trimmed, LEADING_ZERO)).as_py():
        return text
    if not pc.all(pc.match_substring_regex(trimmed, WHOLE)).as_py():
        return value
    whole = _integers(present, notation)
    if present.null_count == 0 == whole.null_count:
        return whole
    exact = pc.all(pc.less_equal(pc.abs(value), float(EXACT_FLOAT))).as_py()
    return value if exact else text


def _integers(column: pa.ChunkedArray, notation: Notation) -> pa.ChunkedArray:
    """Parse as int64, with any number of leading zeros and zeros after the point; null for other texts."""
    if pa.types.is_integer(column.type) and column.type != pa.uint64():
        return without_numbers(column, notation.missing).cast(pa.int64())
    text = matching(pc.utf8_trim_whitespace(texts(column, notation.missing)), WHOLE_ID)
    negative = pc.starts_with(text, "-")
    digits = pc.replace_substring_regex(text, r"^[+-]?0*(\d+?)(\.0*)?$", r"\1")
    length = pc.utf8_length(digits)
    edge = pc.less_equal(digits, pc.if_else(negative, SMALLEST, LARGEST))
    fits = pc.or_(pc.less(length, len(LARGEST)), pc.and_(pc.equal(length, len(LARGEST)), edge))
    signed = pc.binary_join_element_wise(pc.if_else(negative, "-", ""), digits, "")
    return pc.if_else(fits, signed, None).cast(pa.int64())


def _check_digits(column: pa.ChunkedArray) -> None:
    if not pa.types.is_floating(column.type):
        return
    largest = pc.max(pc.abs(pc.if_else(pc.is_finite(column), column, None))).as_py()
    if largest is not None and largest > EXACT_FLOAT:
        raise DataError(
            f"user_id is a column of floats and holds {largest:.0f}, beyond 2**53 a float loses digits;"
            " write the column as int64 or as text, and set data.source.user_id_type"
        )

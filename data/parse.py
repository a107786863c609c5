"""Columns as a source wrote them, read as numbers, moments and identifiers.

Every function takes a column of any Arrow type, works on it chunk by chunk without a Python loop over rows,
and gives null where a value is missing or cannot be read.
"""

from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
WHOLE = r"^[+-]?\d+$"
WHOLE_ID = r"^-?0*\d{1,18}(\.0*)?$"
"""An integer of at most 18 digits; `7.0` too, as a spreadsheet or a float column writes 7."""
DATED = r"^(\d{4}-\d{2}-\d{2}|\d{8})([T ].*)?$"
ZONED = r"[T ].*(Z|[+-]\d{2}(:?\d{2})?)$"
MOMENT = pa.timestamp("us", tz="UTC")
EARLIEST, LATEST = (pa.scalar(pd.Timestamp(day, tz="UTC"), MOMENT) for day in ("1700-01-01", "2200-01-01"))
"""Nanosecond clocks, which later stages may use, end not far beyond."""


def texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """As it is written, blanks as null. Raises ArrowNotImplementedError on nested types."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    text = column if pa.types.is_string(column.type) else column.cast(pa.string())
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(text), ""), None, text)


def numbers(column: pa.ChunkedArray, decimal: str = ".", thousands: str | None = None) -> pa.ChunkedArray:
    """float64; NaN and infinity count as unreadable."""
    if _is_number(column.type):
        value = column.cast(pa.float64(), safe=False)
    else:
        text = pc.utf8_trim_whitespace(texts(column))
        if thousands:
            text = pc.replace_substring(text, thousands, "")
        if decimal != ".":
            text = pc.replace_substring(text, decimal, ".")
        value = _matching(text, NUMBER).cast(pa.float64())
    return pc.if_else(pc.is_finite(value), value, None)


def identifiers(column: pa.ChunkedArray, id_type: Literal["integer", "string"]) -> pa.ChunkedArray:
    """int64 or string. Strings are kept to the letter: who asks the server later has to spell them alike."""
    text = texts(column)
    if id_type == "string":
        return text
    digits = _matching(pc.utf8_trim_whitespace(text), WHOLE_ID)
    return pc.replace_substring_regex(digits, r"\.0*$", "").cast(pa.int64())


def moments(column: pa.ChunkedArray, date_format: str | None = None) -> pa.ChunkedArray:
    """timestamp[us, UTC]; a time without a zone is taken as UTC, a date as its midnight."""
    if pa.types.is_temporal(column.type):
        moment = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False)
        moment = moment.cast(MOMENT)
    else:
        chunks = [_moments_of_texts(chunk, date_format) for chunk in texts(column).chunks]
        moment = pa.chunked_array(chunks, MOMENT)
    known = pc.and_(pc.greater_equal(moment, EARLIEST), pc.less(moment, LATEST))
    return pc.if_else(known, moment, None)


def typed(column: pa.ChunkedArray, kind: str, decimal: str, thousands: str | None) -> pa.ChunkedArray:
    """Forced to `int64`, `float64` or `string`; an int64 with a fraction is unreadable."""
    if kind == "string":
        return texts(column)
    value = numbers(column, decimal, thousands)
    if kind == "float64":
        return value
    exact = pc.and_(pc.equal(value, pc.floor(value)), pc.less(pc.abs(value), 2.0**53))
    return pc.if_else(exact, value, None).cast(pa.int64())


def inferred(column: pa.ChunkedArray, decimal: str, thousands: str | None) -> pa.ChunkedArray:
    """int64 or float64 when every value that is there is a number, else string."""
    if pa.types.is_integer(column.type) and column.null_count == 0 and column.type != pa.uint64():
        return column.cast(pa.int64())
    if _is_number(column.type):
        return numbers(column)
    text = texts(column)
    value = numbers(text, decimal, thousands)
    if value.null_count > text.null_count or text.null_count == len(text):
        return text
    short = pc.less_equal(pc.utf8_length(text), 18)  # what surely fits into 64 bits
    if text.null_count == 0 and pc.all(pc.and_(pc.match_substring_regex(text, WHOLE), short)).as_py():
        return pc.replace_substring(text, "+", "").cast(pa.int64())
    return value


def _moments_of_texts(chunk: pa.Array, date_format: str | None) -> pa.Array:
    text = pc.utf8_trim_whitespace(chunk)
    if date_format is not None:
        return _by_pandas(text, date_format)
    try:
        # the common spellings, a hundred times as fast as pandas
        return text.cast(pa.timestamp("us")).cast(MOMENT)
    except pa.ArrowInvalid:
        # pandas would read "now" as the present and "2020" as a New Year's midnight
        text = _matching(text, DATED)
    # apart, since pandas reads a time without a zone in the zone of the row above it
    zoned = pc.match_substring_regex(text, ZONED)
    with_zone, without = (pc.if_else(which, text, None) for which in (zoned, pc.invert(zoned)))
    return pc.coalesce(_by_pandas(with_zone, "ISO8601"), _by_pandas(without, "ISO8601"))


def _by_pandas(text: pa.Array, date_format: str) -> pa.Array:
    moment = pd.to_datetime(text.to_pandas(), format=date_format, utc=True, errors="coerce")
    return pa.array(moment, from_pandas=True).cast(MOMENT, safe=False)


def _matching(text: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    return pc.if_else(pc.match_substring_regex(text, pattern), text, None)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))

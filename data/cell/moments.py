"""Parses times, in the formats that a source can declare, into UTC timestamps."""

from collections.abc import Callable

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data.cell.notation import EPOCHS, Notation
from data.cell.numbers import numbers
from data.cell.text import matching, texts

PLAIN = Notation()
MOMENT = pa.timestamp("us", tz="UTC")
EARLIEST, LATEST = (pa.scalar(pd.Timestamp(day, tz="UTC"), MOMENT) for day in ("1700-01-01", "2200-01-01"))
"""Times outside are null. Nanosecond timestamps, which later stages may use, have a slightly larger range."""
DATED = r"^(\d{4}-\d{2}-\d{2}|\d{8})([T ].*)?$"
ZONED = r"[T ].*(Z|[+-]\d{2}(:?\d{2})?)$"
SPELLED = (
    r"^(?P<first>\d{1,2})[./-](?P<second>\d{1,2})[./-](?P<year>\d{4})"
    r"(?:[ T,]+(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<seconds>\d{2}(?:\.\d+)?))?"
    r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?)?$"
)


def moments(column: pa.ChunkedArray, notation: Notation = PLAIN) -> pa.ChunkedArray:
    """Parse a column [rows] into timestamp[us, UTC] [rows]; null for unreadable cells. A date is its
    midnight.

    A time without a zone is in `notation.timezone`. When clocks are put back, an hour exists twice, and the
    earlier one is used. When they are put forward, an hour does not exist, and the time after it is used.
    """
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        moment = column.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(MOMENT)
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        naive = column.cast(pa.timestamp("us"), safe=False)
        moment = _each(naive, lambda chunk: _localized(chunk, notation.timezone))
    elif notation.dates in EPOCHS:
        moment = _epoch(column, notation)
    else:
        moment = _each(texts(column, notation.missing), lambda chunk: _spelled(chunk, notation))
    known = pc.and_(pc.greater_equal(moment, EARLIEST), pc.less(moment, LATEST))
    return pc.if_else(known, moment, None)


def _each(column: pa.ChunkedArray, read: Callable[[pa.Array], pa.Array]) -> pa.ChunkedArray:
    return pa.chunked_array([read(chunk) for chunk in column.chunks], MOMENT)


def _localized(naive: pa.Array, zone: str) -> pa.Array:
    if zone == "UTC":
        return naive.cast(MOMENT)
    local = pc.assume_timezone(naive, zone, ambiguous="earliest", nonexistent="latest")
    return local.cast(MOMENT)


def _epoch(column: pa.ChunkedArray, notation: Notation) -> pa.ChunkedArray:
    """Numbers since 1970 in the unit of `dates`; floats may have a fraction."""
    units = EPOCHS[notation.dates]
    value = numbers(column, Notation(decimal=notation.decimal, missing=notation.missing))
    micros = pc.round(pc.multiply(pc.divide(value, float(units)), 1e6))
    sane = pc.if_else(pc.less(pc.abs(micros), 2.0**53), micros, None)
    return sane.cast(pa.int64()).cast(pa.timestamp("us")).cast(MOMENT)


def _spelled(chunk: pa.Array, notation: Notation) -> pa.Array:
    text = pc.utf8_trim_whitespace(chunk)
    if notation.dates == "iso":
        return _iso(text, notation.timezone)
    if notation.dates in ("day_first", "month_first"):
        return _in_order(text, notation)
    if "%z" in notation.dates or "%Z" in notation.dates:
        return _zoned_by_pandas(text, notation.dates)
    return _localized(_naive_by_pandas(text, notation.dates), notation.timezone)


def _iso(text: pa.Array, zone: str) -> pa.Array:
    for kind in (pa.timestamp("us"), MOMENT):
        try:
            # Arrow reads the common formats a hundred times as fast as pandas
            moment = text.cast(kind)
        except pa.ArrowInvalid:
            continue
        return moment if kind == MOMENT else _localized(moment, zone)
    # pandas would read "now" as the present and "2020" as midnight of January 1
    text = matching(text, DATED)
    # separately, because pandas reads a time without a zone in the zone of the row before it
    zoned = pc.match_substring_regex(text, ZONED)
    with_zone, without = (pc.if_else(which, text, None) for which in (zoned, pc.invert(zoned)))
    naive = _naive_by_pandas(without, "ISO8601")
    return pc.coalesce(_zoned_by_pandas(with_zone, "ISO8601"), _localized(naive, zone))


def _zoned_by_pandas(text: pa.Array, date_format: str) -> pa.Array:
    moment = pd.to_datetime(text.to_pandas(), format=date_format, utc=True, errors="coerce")
    return pa.array(moment, from_pandas=True).cast(MOMENT, safe=False)


def _naive_by_pandas(text: pa.Array, date_format: str) -> pa.Array:
    # as UTC, so that the type is a timestamp even when no cell can be read
    return _zoned_by_pandas(text, date_format).cast(pa.timestamp("us"))


def _in_order(text: pa.Array, notation: Notation) -> pa.Array:
    """13/04/2023, 12/1/2021 8:26, 31.12.2021 23:59:59, 1/5/2023 3:04 PM."""
    parts = pc.extract_regex(matching(text, SPELLED), SPELLED)
    first, second, year, hour, minute = (
        _whole(pc.struct_field(parts, name)) for name in ("first", "second", "year", "hour", "minute")
    )
    day, month = (first, second) if notation.dates == "day_first" else (second, first)
    midnight = pd.to_datetime(pd.DataFrame({"year": year, "month": month, "day": day}), errors="coerce")
    hour, possible = _on_24_hours(hour, pc.struct_field(parts, "half").to_pandas().fillna("").str.lower())
    seconds = pd.to_numeric(pc.struct_field(parts, "seconds").to_pandas().replace("", "0"))
    possible &= (minute < 60) & (seconds < 60)
    micros = ((hour * 60 + minute) * 60 + seconds) * 1e6
    moment = (midnight + pd.to_timedelta(micros.round(), unit="us")).where(possible)
    naive = pa.array(moment, from_pandas=True).cast(pa.timestamp("us"), safe=False)
    return _localized(naive, notation.timezone)


def _whole(text: pa.Array) -> "pd.Series[float]":
    """Numbers; 0 for a part that the format omits."""
    whole: pd.Series[float] = pc.if_else(pc.equal(text, ""), "0", text).cast(pa.float64()).to_pandas()
    return whole


def _on_24_hours(
    hour: "pd.Series[float]", half: "pd.Series[str]"
) -> "tuple[pd.Series[float], pd.Series[bool]]":
    """Hours of the day (0 to 23), and whether each hour is valid."""
    of_twelve = half != ""
    possible = (~of_twelve & (hour < 24)) | (of_twelve & hour.between(1, 12))
    return (hour % 12 + 12 * (half == "p")).where(of_twelve, hour), possible

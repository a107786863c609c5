"""Recognises the format of moments. Only a number above 12 makes the order of day and month certain."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

NUMBERED = re.compile(r"^(\d{1,2})([/.-])(\d{1,2})\2(\d{4}|\d{2})(?:[T ,]+(.*))?$")
ISO = re.compile(
    r"^\d{4}-\d{2}-\d{2}(?:[T ](\d{2}(?::?\d{2}(?::?\d{2}(?:[.,]\d+)?)?)? ?(?:Z|[+-]\d{2}(?::?\d{2})?)?))?$"
)
COMPACT = re.compile(r"^(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$")
ZONED = re.compile(r"(Z|[+-]\d{2}(:?\d{2})?)$")
NAMED_UTC = (" UTC", " GMT")
FORMATS = (
    *("%Y-%m", "%Y/%m", "%m/%Y", "%b %Y", "%B %Y", "%b-%y", "%b-%Y", "%Y/%m/%d", "%Y.%m.%d", "%d-%b-%Y"),
    *("%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%d%b%Y", "%d. %B %Y"),
    *("%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y.%m.%d %H:%M:%S", "%d%b%Y:%H:%M:%S", "%Y%m%d%H%M%S"),
    *("%Y%m%d %H:%M:%S", "%d-%b-%Y %H:%M:%S", "%d-%b-%Y %H:%M", "%d %b %Y %H:%M", "%d %b %Y %H:%M:%S"),
    *("%b %d, %Y %H:%M", "%b %d, %Y %I:%M %p", "%B %d, %Y %I:%M %p", "%a %b %d %H:%M:%S %Y"),
    *("%y%m%d", "%d%m%Y", "%m%d%Y"),
    *("%d/%b/%Y:%H:%M:%S %z", "%d/%b/%Y", "%a, %d %b %Y %H:%M:%S %z", "%Y-%m-%d-%H.%M.%S"),
)
PLAIN_CLOCK = re.compile(r"^\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AaPp]\.?[Mm]\.?)?$")
CLOCKS = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p", "%H.%M", "%Hh%M")
EPOCHS = {"epoch_s": (10, 1), "epoch_ms": (13, 10**3), "epoch_us": (16, 10**6), "epoch_ns": (19, 10**9)}
EARLIEST_S, LATEST_S = 631_152_000, 2_208_988_800
"""1990 and 2040: the range in which a number is accepted as the time of a business."""
ENOUGH = 0.95
"""The share of the values that must have the format. The others become rejected rows, which are counted."""


@dataclass(frozen=True)
class Dates:
    """The format of the moments of one column."""

    dates: str
    """The value for `data.source.dates`."""
    why: str
    clock: bool = False
    """Whether the moments have times of day."""
    zoned: bool = False
    ambiguous: bool = False
    """Whether day and month can be exchanged."""


def find_dates(values: Sequence[str]) -> Dates | None:
    """The format of distinct texts; None if they are not moments."""
    if not values:
        return None
    iso = [found for value in values if (found := ISO.match(value))]
    if len(iso) >= ENOUGH * len(values):
        clocks = [found[1] for found in iso if found[1]]
        midnight = all(re.fullmatch(r"00:00(:00(\.0+)?)?", clock) for clock in clocks)
        zoned = bool(clocks) and all(ZONED.search(clock) for clock in clocks)
        return Dates("iso", f"such as {values[0]}", bool(clocks) and not midnight, zoned)
    if sum(bool(COMPACT.match(value)) for value in values) >= ENOUGH * len(values):
        return Dates("iso", f"such as {values[0]}: year, month, day")
    numbered = [found for value in values if (found := NUMBERED.match(value))]
    if len(numbered) >= ENOUGH * len(values):
        return _numbered(numbered)
    for name in NAMED_UTC:
        if sum(value.endswith(name) for value in values) >= ENOUGH * len(values):
            return _named_utc([value.removesuffix(name) for value in values], name)
    return _epoch(values) or _by_format(values)


def _named_utc(values: Sequence[str], name: str) -> Dates | None:
    """For `2019-10-01 00:00:00 UTC`: the name of the zone becomes a part of the format."""
    for spelling in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M"):
        if _fits(values, spelling):
            return Dates(spelling + name, f"such as {values[0]}{name}", True, True)
    return None


def _numbered(matches: Sequence[re.Match[str]]) -> Dates | None:
    """For two numbers and a year."""
    first = [int(match[1]) for match in matches]
    second = [int(match[3]) for match in matches]
    clocks = [match[5] for match in matches if match[5]]
    day_first, month_first = max(first) > 12, max(second) > 12
    if day_first and month_first:
        days = (
            sum(value > 12 for value in first) / len(first),
            sum(value > 12 for value in second) / len(second),
        )
        if min(days) > 0.02:
            return None
        day_first, month_first = days[0] > days[1], days[1] > days[0]
    order = "day_first" if day_first else "month_first"
    dotted = matches[0][2] == "."
    if day_first or month_first:
        place = next(m for m in matches if int(m[1 if day_first else 3]) > 12)
        why = f"{place[0]} can only be read in this order"
    elif dotted:
        order, why = "day_first", f"dates with dots begin with the day, such as {matches[0][0]}"
    elif len(set(first)) == 1 and len(set(second)) > 1 and len(matches) > 3:
        order, why = "day_first", f"only {first[0]} comes first: one day of each month"
    elif len(set(second)) == 1 and len(set(first)) > 1 and len(matches) > 3:
        order, why = "month_first", f"only {second[0]} comes second: one day of each month"
    else:
        return Dates("month_first", f"{matches[0][0]} can be read both ways", bool(clocks), ambiguous=True)
    return Dates(
        spelled(order, [match[0] for match in matches]),
        why,
        _has_clock(clocks),
        bool(clocks) and all(map(ZONED.search, clocks)),
    )


def _has_clock(clocks: Sequence[str]) -> bool:
    return bool(clocks) and not all(re.fullmatch(r"0?0:00(:00)?", clock) for clock in clocks)


def spelled(order: str, values: Sequence[str]) -> str:
    """`order` itself if years have four digits, as ingest needs; else a format for years and times."""
    matches = [found for value in values if (found := NUMBERED.match(value))]
    if all(len(match[4]) == 4 and (not match[5] or PLAIN_CLOCK.match(match[5])) for match in matches):
        return order
    sign = matches[0][2]
    day = sign.join(("%d", "%m") if order == "day_first" else ("%m", "%d"))
    day += sign + ("%Y" if len(matches[0][4]) == 4 else "%y")
    texts = [match[0] for match in matches]
    return next((s for s in (day, *(f"{day} {clock}" for clock in CLOCKS)) if _fits(texts, s)), order)


def _epoch(values: Sequence[str]) -> Dates | None:
    """For whole numbers of one length, from EARLIEST_S to LATEST_S, which span more than 20 days."""
    whole = [value.removesuffix(".0") for value in values]
    if not all(value.isdigit() for value in whole):
        return None
    for name, (digits, unit) in EPOCHS.items():
        numbers = [int(value) for value in whole]
        seconds = [number / unit for number in numbers]
        if (
            sum(len(value) == digits for value in whole) >= ENOUGH * len(whole)
            and min(seconds) >= EARLIEST_S
            and max(seconds) <= LATEST_S
            and max(seconds) - min(seconds) > 20 * 86_400
        ):
            first, last = (pd.Timestamp(edge, unit="s").date() for edge in (min(seconds), max(seconds)))
            return Dates(name, f"{digits} digits, which run from {first} to {last}", True, True)
    return None


def _by_format(values: Sequence[str]) -> Dates | None:
    sample = list(values[:2000])
    if not any(character.isdigit() for character in sample[0]) or len(sample[0]) > 40:
        return None
    for spelling in FORMATS:
        if _fits(sample[:20], spelling) and _fits(sample, spelling):
            clock = any(sign in spelling for sign in ("%H", "%I"))
            return Dates(spelling, f"such as {sample[0]}", clock, "%z" in spelling)
    return None


def _fits(values: Sequence[str], spelling: str) -> bool:
    read: Any = pd.to_datetime(pd.Series(list(values)), format=spelling, errors="coerce", utc=True)
    return bool(read.notna().mean() >= ENOUGH)

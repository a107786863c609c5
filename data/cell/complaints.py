"""Messages about cells that cannot be read, with the setting that would make them readable."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data.cell.moments import moments
from data.cell.notation import EPOCHS, Notation
from data.cell.numbers import numbers

MIN_READABLE_SHARE = 0.5
"""Share of the unreadable cells that a remedy has to make readable to be suggested."""
MAX_CHECKED_CELLS = 10_000


def not_an_identifier(cells: pa.ChunkedArray, notation: Notation) -> str:
    return "is not an integer (data.source.user_id_type)"


def not_a_number(cells: pa.ChunkedArray, notation: Notation) -> str:
    """The message for `cells` of a column that are not missing and not numbers in `notation`."""
    remedy = number_remedy(cells, notation)
    return f"is not a number; {remedy}" if remedy else "is not a number"


def number_remedy(cells: pa.ChunkedArray, notation: Notation) -> str:
    """The setting that makes the cells numbers; empty when there is none."""
    cells = cells.slice(0, MAX_CHECKED_CELLS)
    for changes in _number_settings(notation):
        read = numbers(cells, replace(notation, **changes))
        if len(read) - read.null_count > MIN_READABLE_SHARE * len(read):
            return "set " + " and ".join(f"{_SETTINGS[key]} to {_shown(v)}" for key, v in changes.items())
    return ""


_SETTINGS = {
    "decimal": "data.source.options.decimal",
    "thousands": "data.source.options.thousands",
    "currency": "data.source.currency",
}


def _number_settings(notation: Notation) -> list[Mapping[str, Any]]:
    """Changes of the notation to try, the smallest change first."""
    point, other = notation.decimal, "," if notation.decimal == "." else "."
    return [
        *[{"thousands": sign} for sign in (other, " ", "'")],
        {"decimal": other, **({"thousands": point} if notation.thousands == other else {})},
        *[{"decimal": other, "thousands": sign} for sign in (point, " ", "'")],
        {"currency": True},
        {"decimal": other, "currency": True},
    ]


def _shown(value: Any) -> str:
    return "true" if value is True else f"'{value}'" if value != "'" else '"\'"'


def not_a_date(cells: pa.ChunkedArray, notation: Notation) -> str:
    """The message for `cells` of a column that are not missing and not times in `notation`."""
    if notation.dates == "iso":
        wrong = "is not an ISO 8601 date (or data.source.dates)"
    else:
        wrong = f"is not a date in the format data.source.dates {notation.dates}"
    cells = cells.slice(0, MAX_CHECKED_CELLS)
    named = ("iso", "day_first", "month_first", *EPOCHS)
    readable = {dates: _plausible(cells, replace(notation, dates=dates)) for dates in named}
    best = max(readable.values())
    if best <= MIN_READABLE_SHARE * len(cells):
        return wrong
    names = [dates for dates, rows in readable.items() if rows == best]
    looks = "looks like epoch numbers; " if names[0] in EPOCHS else ""
    return f"{wrong}; {looks}set data.source.dates to {' or '.join(names)}"


def _plausible(cells: pa.ChunkedArray, notation: Notation) -> int:
    """The number of times between 1990 and 2100, which excludes epoch numbers in another unit."""
    year = pc.year(moments(cells, notation))
    return int(pc.sum(pc.and_(pc.greater_equal(year, 1990), pc.less(year, 2100))).as_py() or 0)

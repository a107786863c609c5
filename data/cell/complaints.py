"""Why cells cannot be read, with the setting under which they could be."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data.cell.moments import moments
from data.cell.notation import EPOCHS, Notation
from data.cell.numbers import numbers

ENOUGH = 0.5
"""Share of the unreadable cells that a remedy has to make readable."""
LOOKED_AT = 10_000


def not_an_identifier(cells: pa.ChunkedArray, notation: Notation) -> str:
    return "is not an integer (data.source.user_id_type)"


def not_a_number(cells: pa.ChunkedArray, notation: Notation) -> str:
    """`cells` are of the column, present, and no numbers in `notation`."""
    remedy = number_remedy(cells, notation)
    return f"is not a number; {remedy}" if remedy else "is not a number"


def number_remedy(cells: pa.ChunkedArray, notation: Notation) -> str:
    """Empty where no setting makes the cells numbers."""
    cells = cells.slice(0, LOOKED_AT)
    for changes in _number_settings(notation):
        read = numbers(cells, replace(notation, **changes))
        if len(read) - read.null_count > ENOUGH * len(read):
            return "set " + " and ".join(f"{_SETTINGS[key]} to {_shown(v)}" for key, v in changes.items())
    return ""


_SETTINGS = {
    "decimal": "data.source.options.decimal",
    "thousands": "data.source.options.thousands",
    "currency": "data.source.currency",
}


def _number_settings(notation: Notation) -> list[Mapping[str, Any]]:
    """The nearest first."""
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
    """`cells` are of the column, present, and no times in `notation`."""
    if notation.dates == "iso":
        wrong = "is not an ISO 8601 date (or data.source.dates)"
    else:
        wrong = f"is not a date as data.source.dates {notation.dates} has it"
    cells = cells.slice(0, LOOKED_AT)
    named = ("iso", "day_first", "month_first", *EPOCHS)
    readable = {dates: _plausible(cells, replace(notation, dates=dates)) for dates in named}
    best = max(readable.values())
    if best <= ENOUGH * len(cells):
        return wrong
    names = [dates for dates, rows in readable.items() if rows == best]
    looks = "looks like epoch numbers; " if names[0] in EPOCHS else ""
    return f"{wrong}; {looks}set data.source.dates to {' or '.join(names)}"


def _plausible(cells: pa.ChunkedArray, notation: Notation) -> int:
    """How many are times between 1990 and 2100: epoch numbers in another unit are not."""
    year = pc.year(moments(cells, notation))
    return int(pc.sum(pc.and_(pc.greater_equal(year, 1990), pc.less(year, 2100))).as_py() or 0)

"""Profiles the columns of a sample: numbers, moments or words, and their distinct values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from churn.init.belief import Notes
from churn.init.dates import Dates, find_dates
from churn.init.notation import BLANKS, CURRENCY, find_notation
from data.cell import parse
from data.cell.notation import MISSING_NUMBERS, Notation

GAPS = frozenset(
    (
        "?",
        "-",
        "--",
        "–",
        "unknown",
        ".",
        "..",
        "missing",
        "k.a.",
        "nv",
        "s/d",
        "(null)",
        "\\n",
        "#value!",
        "#div/0!",
        "n.a.",
    )
)
"""Words that mean a missing value in a column of numbers, for `data.source.missing`."""
INSPECTED = 20_000
"""The number of distinct values by which dates and numbers are recognised."""


@dataclass(frozen=True)
class Column:
    """One column of the sample. Arrays have one element per row."""

    name: str
    kind: pa.DataType
    texts: pd.Series
    """The cells as written, trimmed; NA if missing."""
    numbers: NDArray[np.float64]
    numeric: bool
    """Whether every present value is a number."""
    gaps: tuple[str, ...] = ()
    """Words among numbers that mean a missing value."""
    percent: bool = False
    currency: bool = False
    dates: Dates | None = None
    stored: pa.ChunkedArray | None = field(default=None, repr=False)
    """The column in the type of the file, for moments of Parquet."""

    @property
    def rows(self) -> int:
        return len(self.texts)

    @cached_property
    def present(self) -> float:
        """Share of rows with a value."""
        return float(self.texts.notna().mean())

    @cached_property
    def counts(self) -> "pd.Series[int]":
        """The rows of each value, most frequent first; equal counts are sorted by value."""
        counts = self.texts.value_counts()
        return counts.sort_index().sort_values(ascending=False, kind="stable")

    @property
    def distinct(self) -> int:
        return len(self.counts)

    @property
    def values(self) -> list[str]:
        return [str(value) for value in self.counts.index]

    @property
    def unique(self) -> float:
        """Distinct values as a share of the present values."""
        return self.distinct / max(1, int(self.texts.notna().sum()))

    @cached_property
    def whole(self) -> bool:
        """Whether all are numbers without a fraction."""
        known = self.numbers[np.isfinite(self.numbers)]
        return self.numeric and len(known) > 0 and bool((known == np.floor(known)).all())

    @cached_property
    def leading_zeros(self) -> bool:
        """Whether leading zeros would be lost if the values were read as numbers."""
        return self.numeric and bool(self.texts.str.match(r"^0\d").any())

    @property
    def stored_as_text(self) -> bool:
        return bool(pa.types.is_string(self.kind))

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """A number for each distinct value, -1 where missing."""
        return pd.factorize(self.texts)[0]

    def shown(self, most: int = 4) -> str:
        """The values or the range, as text for the user."""
        if self.numeric and self.distinct > 2:
            known = self.numbers[np.isfinite(self.numbers)]
            return f"{known.min():,.10g} to {known.max():,.10g}"
        values = self.values
        return ", ".join(values[:most]) + (", ..." if len(values) > most else "")


def profile(table: pa.Table, notes: Notes) -> tuple[list[Column], Notation]:
    """All columns of the table, and the notation of its numbers."""
    written = {name: _texts(table[name]) for name in table.column_names}
    distinct = {name: _distinct(texts) for name, texts in written.items()}
    notation = find_notation(
        ((name, distinct[name]) for name in table.column_names if pa.types.is_string(table[name].type)), notes
    )
    return [
        _column(name, table[name], written[name], distinct[name], notation) for name in table.column_names
    ], notation


def _texts(column: pa.ChunkedArray) -> pd.Series:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.string())
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        value = column.cast(pa.float64(), safe=False)
        column = pc.if_else(pc.is_nan(value), None, value)
    text = column.cast(pa.string()).to_pandas().astype("object")
    if pa.types.is_floating(column.type):
        text = text.str.replace(r"\.0$", "", regex=True)
    stripped: pd.Series = text.str.strip(BLANKS + "\t\r\n")
    return stripped.mask(stripped == "")


def _distinct(texts: pd.Series) -> list[str]:
    found = texts.dropna().unique()
    if len(found) > INSPECTED:
        found = found[np.linspace(0, len(found) - 1, INSPECTED).astype(int)]
    return [str(value) for value in found]


def _column(
    name: str, stored: pa.ChunkedArray, texts: pd.Series, distinct: Sequence[str], notation: Notation
) -> Column:
    kind = stored.type
    empty = np.full(len(texts), np.nan)
    if pa.types.is_temporal(kind):
        clock = (
            pa.types.is_timestamp(kind)
            and not pc.all(pc.equal(pc.floor_temporal(stored, unit="day"), stored)).as_py()
        )
        zoned = getattr(kind, "tz", None) is not None
        as_stored = Dates("iso", f"stored as {kind}", bool(clock), zoned)
        return Column(name, kind, texts, empty, False, dates=as_stored, stored=stored)
    if not (pa.types.is_string(kind) or pa.types.is_boolean(kind)):
        numbers = stored.cast(pa.float64(), safe=False).to_numpy()
        dates = find_dates(distinct) if pa.types.is_integer(kind) else None
        return Column(name, kind, texts, np.asarray(numbers, float), True, dates=dates, stored=stored)
    gaps, numeric = _words_among_numbers(distinct, notation)
    if not numeric:
        return Column(name, kind, texts, empty, False, dates=find_dates(distinct), stored=stored)
    written = texts.mask(texts.str.lower().isin([*MISSING_NUMBERS, *(gap.lower() for gap in gaps)]))
    percent = any(value.endswith("%") for value in distinct)
    currency = any(CURRENCY.search(value) for value in distinct)
    numbers = _numbers(written, notation)
    dates = find_dates([v for v in distinct if v not in gaps and v.lower() not in MISSING_NUMBERS])
    return Column(name, kind, written, numbers, True, tuple(gaps), percent, currency, dates, stored)


def _words_among_numbers(distinct: Sequence[str], notation: Notation) -> tuple[list[str], bool]:
    """The words that mean a missing value, and whether all other values are numbers."""
    others = [value for value in distinct if value.lower() not in MISSING_NUMBERS]
    readable = _numbers(pd.Series(others, dtype="object"), notation)
    words = [value for value, number in zip(others, readable, strict=True) if not np.isfinite(number)]
    if len(words) == len(others):
        return [], False
    return words, len(words) <= 2 and all(word.lower() in GAPS for word in words)


def _numbers(texts: pd.Series, notation: Notation) -> NDArray[np.float64]:
    """The numbers as ingest reads them, without a percent sign; NaN for a text that is not a number."""
    bare = texts.str.removesuffix("%")
    column = pa.chunked_array([pa.array(bare, pa.string(), from_pandas=True)])
    return np.asarray(parse.numbers(column, notation).to_numpy(), float)


def moments(column: Column, dates: Dates) -> "pd.Series[Any]":
    """The moments as ingest reads them: datetime64[us, UTC] per row, NaT for another format than `dates`."""
    stored = column.stored if column.stored is not None else pa.chunked_array([pa.array(column.texts)])
    read = parse.moments(stored, Notation(dates=dates.dates))
    return pd.Series(read.to_pandas().to_numpy(), dtype="datetime64[us, UTC]")

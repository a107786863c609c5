"""What a column holds: numbers, moments, words, and how many of them differ."""

import re
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
from churn.init.notation import BLANKS, CURRENCY, Notation, bared, find_notation
from data import parse

MISSING = frozenset(("na", "nan", "null", "none", "n/a", "#n/a", "#na", "<na>", "nat"))
"""Missing in a column of numbers in any case."""
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
"""Missing in a column of numbers where `data.source.missing` names them."""
INSPECTED = 20_000
"""Distinct values by which dates and numbers are recognised."""


@dataclass(frozen=True)
class Column:
    """One column of the sample; arrays have a row each."""

    name: str
    kind: pa.DataType
    texts: pd.Series
    """As written, trimmed; missing as NA."""
    numbers: NDArray[np.float64]
    numeric: bool
    """Every value that is there is a number."""
    gaps: tuple[str, ...] = ()
    """Words among numbers that stand for nothing."""
    percent: bool = False
    currency: bool = False
    dates: Dates | None = None
    stored: pa.ChunkedArray | None = field(default=None, repr=False)
    """The column as it was read, for moments of Parquet."""

    @property
    def rows(self) -> int:
        return len(self.texts)

    @cached_property
    def present(self) -> float:
        """Share of rows with a value."""
        return float(self.texts.notna().mean())

    @cached_property
    def counts(self) -> "pd.Series[int]":
        """Of each value, most frequent first; equal counts by value."""
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
        """Distinct values as a share of those that are there."""
        return self.distinct / max(1, int(self.texts.notna().sum()))

    @cached_property
    def whole(self) -> bool:
        """Numbers without a fraction."""
        known = self.numbers[np.isfinite(self.numbers)]
        return self.numeric and len(known) > 0 and bool((known == np.floor(known)).all())

    @cached_property
    def leading_zeros(self) -> bool:
        """Whether digits would be lost if it were a number."""
        return self.numeric and bool(self.texts.str.match(r"^0\d").any())

    @property
    def stored_as_text(self) -> bool:
        return bool(pa.types.is_string(self.kind))

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """A number for each distinct value, -1 where missing."""
        return pd.factorize(self.texts)[0]

    def shown(self, most: int = 4) -> str:
        """Its values or its range, for people."""
        if self.numeric and self.distinct > 2:
            known = self.numbers[np.isfinite(self.numbers)]
            return f"{known.min():,.10g} to {known.max():,.10g}"
        values = self.values
        return ", ".join(values[:most]) + (", ..." if len(values) > most else "")


def profile(table: pa.Table, notes: Notes) -> tuple[list[Column], Notation]:
    """Every column, and how the table writes its numbers."""
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
    written = texts.mask(texts.str.lower().isin([*MISSING, *(gap.lower() for gap in gaps)]))
    percent = any(value.endswith("%") for value in distinct)
    currency = any(CURRENCY.search(value) for value in distinct)
    numbers = _numbers(written, notation)
    dates = find_dates([v for v in distinct if v not in gaps and v.lower() not in MISSING])
    return Column(name, kind, written, numbers, True, tuple(gaps), percent, currency, dates, stored)


def _words_among_numbers(distinct: Sequence[str], notation: Notation) -> tuple[list[str], bool]:
    """Words for nothing, and whether all other values are numbers."""
    others = [value for value in distinct if value.lower() not in MISSING]
    readable = _numbers(pd.Series(others, dtype="object"), notation)
    words = [value for value, number in zip(others, readable, strict=True) if not np.isfinite(number)]
    if len(words) == len(others):
        return [], False
    return words, len(words) <= 2 and all(word.lower() in GAPS for word in words)


def _numbers(texts: pd.Series, notation: Notation) -> NDArray[np.float64]:
    """NaN where the text is no number; thousands count only as whole groups, since 31.12.2019 is a day."""
    bare = texts.map(bared, na_action="ignore").astype("object")
    if group := notation.thousands:
        signs = f"[{BLANKS}]" if group == " " else "['’]" if group == "'" else re.escape(group)
        grouped = rf"[+-]?\d{{1,3}}(?:{signs}\d{{3}})+(?:{re.escape(notation.decimal)}\d*)?"
        bare = bare.where(~bare.str.fullmatch(grouped).eq(True), bare.str.replace(signs, "", regex=True))
    column = pa.chunked_array([pa.array(bare, pa.string(), from_pandas=True)])
    return np.asarray(parse.numbers(column, notation.decimal, None).to_numpy(), float)


def moments(column: Column, dates: Dates) -> "pd.Series[Any]":
    """datetime64[ns, UTC] by the row, NaT where the spelling does not fit; days are midnights of UTC."""
    if column.stored is not None and pa.types.is_temporal(column.stored.type):
        read = parse.moments(column.stored).to_pandas()
        return pd.Series(read.to_numpy(), dtype="datetime64[ns, UTC]")
    spelling = dates.dates
    if spelling.startswith("epoch_"):
        unit: Any = spelling.removeprefix("epoch_")
        numbered: pd.Series[Any] = pd.Series(column.numbers)
        return pd.to_datetime(numbered, unit=unit, errors="coerce", utc=True)
    unique = pd.Series(column.values, dtype="object")
    if spelling in ("iso", "day_first", "month_first"):
        how: dict[str, Any] = {"format": "mixed", "dayfirst": spelling == "day_first"}
        if spelling == "iso":
            how = {"format": "%Y%m%d"} if unique.str.fullmatch(r"\d{8}").all() else {"format": "ISO8601"}
        read = pd.to_datetime(unique, errors="coerce", utc=True, **how)
    else:
        read = pd.to_datetime(unique, errors="coerce", utc=True, format=spelling)
    by_value = dict(zip(unique, read, strict=True))
    return pd.to_datetime(column.texts.map(by_value), utc=True)

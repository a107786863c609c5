"""The target of a labelled table: which values mean churned, and which are not known yet."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import DataError
from data.cell import parse
from data.config import TableSource

Value = str | int | float | bool
MANY_VALUES = 50
"""A column with more values than this is not a target. No more values are collected."""


@dataclass
class Target:
    """Reads the target in chunks and stores its distinct values; `check` checks them at the end."""

    source: TableSource
    spellings: dict[str | float, str] = field(default_factory=dict)
    """Normalised value -> its first spelling."""

    def read(self, column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """Return the target as int8 [rows] (1 for a value in `positive`, null for a missing one), and which
        rows to ignore, bool [rows].

        Raises DataError as soon as the column has more than MANY_VALUES values.
        """
        text = parse.texts(column, self.source.missing)
        values: list[str] = sorted(text.drop_null().unique().to_pylist())
        for value in values:
            self.spellings.setdefault(normalised(value), value)
        if len(self.spellings) > MANY_VALUES:
            raise DataError(self._many(f"more than {MANY_VALUES} values"))
        churned = [value for value in values if _is_one_of(value, _as_tuple(self.source.positive))]
        ignored = [value for value in values if _is_one_of(value, self.source.ignore)]
        target = pc.if_else(text.is_valid(), pc.is_in(text, pa.array(churned, pa.string())), None)
        return target.cast(pa.int8()), pc.is_in(text, pa.array(ignored, pa.string()))

    @property
    def stayed(self) -> list[str]:
        """The normalised values that are not in `positive` or `ignore`."""
        others = (*self.source.ignore, *_as_tuple(self.source.positive))
        return sorted(str(normalised(v)) for v in self.spellings.values() if not _is_one_of(v, others))

    def check_delivery(self, stayed: Sequence[str]) -> None:
        """Raise DataError when a delivery contains a value that the stored rows do not have."""
        if len(values := {*stayed, *self.stayed}) > len(stayed):
            raise DataError(self._many(f"{len(values)} values that do not mean churned", sorted(values)))

    def check(self) -> None:
        """Raise DataError unless some value is in `positive`, and exactly one in neither of `positive`,
        `ignore`."""
        ignore, positive = self.source.ignore, _as_tuple(self.source.positive)
        used = [v for v in self.spellings.values() if not _is_one_of(v, ignore)]
        churned = [value for value in used if _is_one_of(value, positive)]
        stayed = [value for value in used if value not in churned]
        if used and not churned:
            quoted = ", in quotes" if any(isinstance(v, bool) for v in positive) else ""
            wanted = " or ".join(repr(value) for value in positive)
            raise DataError(
                f"{self._name} never is {wanted}: there are {_as_text(used)};"
                f" set data.source.positive to what means churned{quoted}"
            )
        if len(stayed) > 1:
            raise DataError(self._many(f"{len(used)} values, not two"))
        if churned and not stayed:
            raise DataError(
                f"{self._name} is always {_as_text(churned)}; a model needs customers who stayed as well"
            )

    def _many(self, what: str, values: Sequence[str] = ()) -> str:
        return (
            f"{self._name} has {what}: {_as_text(values or self.spellings.values())};"
            " list those that mean churned in data.source.positive"
            " and those of an outcome that is not known yet in data.source.ignore, or write a condition in"
            " data.source.computed.target"
        )

    @property
    def _name(self) -> str:
        column = self.source.columns.get("target")
        return "the computed target" if column is None else f"column {column!r} (target)"


def normalised(value: Value) -> str | float:
    """Normalise values with several spellings: 1, 1.0, "1", true, `True.` and TRUE; Yes and ` yes`."""
    text = " ".join(str(value).split()).casefold()
    if text.rstrip(".") in ("true", "false"):
        return float(text.startswith("true"))
    try:
        return float(text)
    except ValueError:
        return text


def _is_one_of(value: str, wanted: Iterable[Value]) -> bool:
    return any(normalised(value) in _forms(one) for one in wanted)


def _forms(value: Value) -> tuple[str | float, ...]:
    """The normalised forms of a value. YAML reads an unquoted Yes or No as a boolean, so a boolean also
    matches these words."""
    if isinstance(value, bool):
        return (1.0, "yes") if value else (0.0, "no")
    return (normalised(value),)


def _as_tuple(positive: Value | tuple[Value, ...]) -> tuple[Value, ...]:
    return positive if isinstance(positive, tuple) else (positive,)


def _as_text(values: Iterable[str]) -> str:
    some = sorted(values)
    return ", ".join(repr(value) for value in some[:8]) + (", ..." if len(some) > 8 else "")

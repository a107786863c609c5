"""What a store holds of some customers, by columns: the form that every reader answers in."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any, Protocol

from handlers.store import wire
from handlers.store.packed import PackedColumns

MEMO_SIZE = 65_536
"""Distinct values of whole numbers and texts that are kept decoded, for each feature."""

Raw = Sequence[bytes | None]


class FeatureStoreUnavailable(RuntimeError):
    """The store cannot be read now; no customer of this read can be scored from it."""

    def __init__(self, reason: str, retry_after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


def joined(parts: "Sequence[Stored]") -> "Stored":
    """All customers of reads of one store, in order."""
    if len(parts) == 1:
        return parts[0]
    kinds = [part.columns for part in parts]
    columns: Mapping[str, list[Any]]
    if all(isinstance(kind, PackedColumns) for kind in kinds):
        columns = PackedColumns.joined(kinds)  # type: ignore[arg-type]  # all are
    else:
        columns = {name: list(chain.from_iterable(kind[name] for kind in kinds)) for name in kinds[0]}
    corrupt: dict[int, str] = {}
    before = 0
    for part in parts:
        corrupt |= {before + at: reason for at, reason in part.corrupt.items()}
        before += len(part.timestamps)
    return Stored(columns, [moment for part in parts for moment in part.timestamps], corrupt)


class UnknownLayout(RuntimeError):
    """The store is not laid out as this reader knows it: Feast itself has to read it."""


@dataclass(frozen=True)
class Stored:
    """Of n customers, in the order asked for."""

    columns: Mapping[str, list[Any]]
    """Feature -> n values: int, float, str, or None for null and for what is not there; `PackedColumns` where
    all of them are packed.
    """
    timestamps: list[datetime | None]
    """The event time of each vector (UTC); None: the store does not know the customer, or `corrupt`."""
    corrupt: dict[int, str] = field(default_factory=dict)
    """Position -> why the bytes of this customer cannot be read; all the values there are None."""


class Reader(Protocol):
    """One online store, open for reading."""

    name: str

    def read(self, ids: Sequence[str], deadline: float) -> Stored:
        """Vectors of distinct masked ids, or FeatureStoreUnavailable, by `deadline` (of time.monotonic)."""

    def close(self) -> None: ...


def remaining(deadline: float) -> float:
    """Seconds until `deadline`. Raises FeatureStoreUnavailable when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise FeatureStoreUnavailable("timeout")
    return left


class Decoder:
    """From columns of Feast's bytes to columns of values, checked against the types of the spec."""

    def __init__(self, features: Iterable[tuple[str, str]]) -> None:
        """`features`: name and dtype (int64, float64, string), in the order in which columns come."""
        self._columns = [(name, dtype, _Memo(dtype)) for name, dtype in features]

    def decode(
        self, raw: Sequence[Raw], timestamps: list[datetime | None], corrupt: dict[int, str]
    ) -> Stored:
        """One raw column a feature. Whoever cannot be read is added to `corrupt`; no other is lost by it."""
        columns = {}
        for (name, dtype, memo), contents in zip(self._columns, raw, strict=True):
            column = _doubles(contents) if dtype == "float64" else None
            if column is None:
                column = list(map(memo.__getitem__, contents))
                if _Unreadable in set(map(type, column)):
                    for position, found in enumerate(column):
                        if type(found) is _Unreadable:
                            corrupt.setdefault(position, f"{name}: {found.reason}")
            columns[name] = column
        for position in corrupt:
            timestamps[position] = None
            for column in columns.values():
                column[position] = None
        return Stored(columns, timestamps, corrupt)


@dataclass(frozen=True)
class _Unreadable:
    reason: str


class _Memo(dict[bytes | None, Any]):
    """Bytes -> value, filled as it is asked: counts and categories repeat, decoding them need not."""

    def __init__(self, dtype: str) -> None:
        super().__init__({None: None})
        self._dtype = dtype
        self._types = {"int64": (int,), "float64": (float, int), "string": (str,)}[dtype]

    def __missing__(self, content: bytes) -> Any:
        try:
            found: Any = wire.value(content)
        except wire.Corrupt as error:
            return _Unreadable(str(error))
        if found is not None and type(found) not in self._types:
            return _Unreadable(f"expected {self._dtype}, the store holds another type")
        if self._dtype == "float64":
            return found
        if len(self) > MEMO_SIZE:
            self.clear()
            self[None] = None
        self[content] = found
        return found


_NULL = wire.NAN


def _doubles(contents: Raw) -> list[Any] | None:
    """A column of doubles and nulls; None if there is anything else in it."""
    if len(contents) < 4:
        return None  # not worth the trouble
    if all(contents):
        return wire.doubles(contents)  # type: ignore[arg-type]  # nothing in it is None
    column: list[Any] | None = wire.doubles([content or _NULL for content in contents])
    if column is not None:
        for position, content in enumerate(contents):
            if not content:
                column[position] = None
    return column

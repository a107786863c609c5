"""Decodes columns of Feast's bytes to columns of values, checked against the types of the spec."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from handlers.store import wire
from handlers.store.stored import Stored

MEMO_SIZE = 65_536
"""Distinct integers and texts whose decoded values are cached, for each feature."""

Raw = Sequence[bytes | None]


class Decoder:
    def __init__(self, features: Iterable[tuple[str, str]]) -> None:
        """`features`: name and dtype (int64, float64, string), in the order of the columns."""
        self._columns = [(name, dtype, _Memo(dtype)) for name, dtype in features]

    def decode(
        self, raw: Sequence[Raw], timestamps: list[datetime | None], corrupt: dict[int, str]
    ) -> Stored:
        """`raw`: a column [n] per feature. A customer with unreadable bytes is added to `corrupt`; the others
        are not affected.
        """
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
    """Bytes -> value, filled on first use: counts and categories repeat, so most need no decoding."""

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


def _doubles(contents: Raw) -> list[Any] | None:
    """A column of doubles and nulls; None for a column with any other value, and for a very short one."""
    if len(contents) < 4:
        return None
    if all(contents):
        return wire.doubles(contents)  # type: ignore[arg-type]  # no item is None
    column: list[Any] | None = wire.doubles([content or wire.NAN for content in contents])
    if column is not None:
        for position, content in enumerate(contents):
            if not content:
                column[position] = None
    return column

"""Feature vectors as they stand packed beside Feast's own table in SQLite: one row a customer, read by numpy.

Feast keeps a row a customer and feature, and a lookup of twenty-two rows is most of what a prediction costs.
So the writer's side (features/packing.py) puts beside Feast's table another that holds what follows from it:

    <table>__packed_<layout>   entity_key, numbers, texts

`numbers` are, little-endian: the event time of the oldest part (int64, seconds of UTC), a byte a feature
that says whether it is there, and float64 a number feature, NaN where there is none. `texts` is a JSON list
of the string features, or null where the spec has none. Triggers on Feast's table drop a customer's packed
row in the transaction that changes any of theirs, whoever writes: a packed row that is there is true.
Customers whose values do not fit (a whole number above 2**53, a value of another type) have none; they, and
those written since, are read from Feast's table.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_MOMENT = -(2**63)
"""In place of the event time of a customer whom the store does not know."""
MOST_EXACT = 2**53
"""Whole numbers up to here are float64 without loss."""
CHANGES = {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)}
"""What can happen to a row of Feast's, and which customers that concerns."""


class Layout:
    """Where the features of a spec stand in a packed row."""

    def __init__(self, features: Sequence[tuple[str, str]]) -> None:
        """`features`: name and dtype (int64, float64, string), in the order of the spec."""
        self.features = tuple(features)
        self.names = tuple(name for name, _ in features)
        self.numbers = tuple(name for name, dtype in features if dtype != "string")
        self.texts = tuple(name for name, dtype in features if dtype == "string")
        self.whole = frozenset(name for name, dtype in features if dtype == "int64")
        self.at = {name: at for at, name in enumerate(self.names)}
        self.place = {name: at for at, name in enumerate(self.numbers)}
        self.dtype = np.dtype(
            [
                ("moment", "<i8"),
                ("there", "u1", (len(features),)),
                ("numbers", "<f8", (len(self.numbers),)),
            ]
        )
        self.nobody = (
            self._row([None] * len(features), NO_MOMENT, [math.nan] * len(self.numbers)),
            json.dumps([None] * len(self.texts)).encode(),
        )
        described = json.dumps(["packed 2", *self.features])
        self.digest = hashlib.sha256(described.encode()).hexdigest()[:12]

    def table(self, feast_table: str) -> str:
        return f"{feast_table}__packed_{self.digest}"

    def triggers(self, feast_table: str) -> dict[str, str]:
        """Name -> statement. All three have to be there for a packed row to be trusted."""
        packed, feasts = quoted(self.table(feast_table)), quoted(feast_table)
        statements = {}
        for change, rows in CHANGES.items():
            name = f"{self.table(feast_table)}_{change.lower()}"
            drops = "".join(
                f"DELETE FROM {packed} WHERE entity_key = {row}.entity_key; "  # noqa: S608
                for row in rows
            )
            statements[name] = f"CREATE TRIGGER {quoted(name)} AFTER {change} ON {feasts} BEGIN {drops}END"
        return statements

    def pack(
        self, columns: Mapping[str, Sequence[Any]], moments: Sequence[int]
    ) -> list[tuple[bytes, bytes | None] | None]:
        """`numbers` and `texts` of each customer; None for one whose values do not fit.

        `columns`: feature -> a value a customer, None for null and for what is not there.
        """
        by_customer = zip(*(columns[name] for name in self.names), strict=True)
        return [self._packed(values, moment) for values, moment in zip(by_customer, moments, strict=True)]

    def _packed(self, values: Sequence[Any], moment: int) -> tuple[bytes, bytes | None] | None:
        numbers, texts = [], []
        for (_, dtype), value in zip(self.features, values, strict=True):
            if dtype == "string":
                texts.append(value)
            elif value is None:
                numbers.append(math.nan)
            elif type(value) is float if dtype == "float64" else _is_exact(value):
                numbers.append(value)
            else:
                return None
        said = json.dumps(texts, ensure_ascii=False).encode() if self.texts else None
        return self._row(values, moment, numbers), said

    def texts_in(self, content: bytes | None) -> list[str | None]:
        """Raises ValueError or TypeError where that is nothing that `pack` made."""
        texts = json.loads(content or b"null")
        if not isinstance(texts, list) or len(texts) != len(self.texts):
            raise ValueError("packed texts of another number")
        return texts

    def _row(self, values: Sequence[Any], moment: int, numbers: Sequence[float]) -> bytes:
        row = np.zeros((), dtype=self.dtype)
        row["moment"] = moment
        row["there"] = [value is not None for value in values]
        row["numbers"] = numbers
        return row.tobytes()


class PackedColumns(Mapping[str, list[Any]]):
    """Columns of packed customers. A column is made a list of Python's values when somebody asks for it;
    what scores, counts and logs looks at the arrays.
    """

    def __init__(
        self, layout: Layout, rows: NDArray[Any], texts: Sequence[Sequence[str | None]] = ()
    ) -> None:
        """`rows`: [n] of `layout.dtype`; `texts`: for each customer the string features."""
        self.layout = layout
        self.rows = rows
        self.texts = texts
        self.derived: dict[str, NDArray[np.float64]] = {}
        """Name -> float64 [n], NaN for null."""
        self._lists: dict[str, list[Any]] = {}

    @classmethod
    def of(cls, layout: Layout, numbers: Sequence[bytes], texts: Sequence[bytes | None]) -> "PackedColumns":
        """From what the table holds. Raises ValueError or TypeError where that is nothing that was packed."""
        if {len(row) for row in numbers} != {layout.dtype.itemsize}:
            raise ValueError("packed rows of another length")
        rows = np.frombuffer(b"".join(numbers), dtype=layout.dtype)
        return cls(layout, rows, [layout.texts_in(text) for text in texts] if layout.texts else ())

    def __len__(self) -> int:
        return len(self.layout.names) + len(self.derived)

    def __iter__(self) -> Iterator[str]:
        yield from self.layout.names
        yield from self.derived

    def __getitem__(self, name: str) -> list[Any]:
        column = self._lists.get(name)
        if column is None:
            column = self._lists[name] = self._listed(name)
        return column

    def numbers(self, name: str) -> NDArray[np.float64]:
        """float64 [n] of a number feature or a derived one, NaN for null."""
        found: NDArray[np.float64] = (
            self.derived[name] if name in self.derived else self.rows["numbers"][:, self.layout.place[name]]
        )
        return found

    def there(self, name: str) -> NDArray[np.bool_]:
        """bool [n]: whether the store holds a value; for a derived feature whether it is a number."""
        if name in self.derived:
            return ~np.isnan(self.derived[name])
        found: NDArray[np.bool_] = self.rows["there"][:, self.layout.at[name]].astype(bool)
        return found

    def matrix(self, names: Sequence[str]) -> NDArray[np.float64]:
        """float64 [n, names], NaN for null: what `encoding.encode` makes of the same columns."""
        found = np.empty((len(self.rows), len(names)))
        stored, places, derived = _places(self.layout, tuple(names), tuple(self.derived))
        found[:, stored] = self.rows["numbers"][:, places]
        for at, name in derived:
            found[:, at] = self.derived[name]
        return found

    def missing(self) -> dict[str, int]:
        """Feature -> how many customers lack it; only those that somebody lacks."""
        counts = len(self.rows) - self.rows["there"].sum(axis=0, dtype=np.int64)
        return {
            name: lacking for name, lacking in zip(self.layout.names, counts.tolist(), strict=True) if lacking
        }

    def taken(self, rows: Sequence[int]) -> "PackedColumns":
        """The customers of these rows, each as often as it is named."""
        which = np.asarray(rows, dtype=np.intp)
        found = PackedColumns(
            self.layout, self.rows[which], [self.texts[row] for row in rows] if self.texts else ()
        )
        found.derived = {name: column[which] for name, column in self.derived.items()}
        return found

    @staticmethod
    def joined(parts: "Sequence[PackedColumns]") -> "PackedColumns":
        """All customers of columns that have one layout, in order."""
        found = PackedColumns(
            parts[0].layout,
            np.concatenate([part.rows for part in parts]),
            [texts for part in parts for texts in part.texts],
        )
        found.derived = {
            name: np.concatenate([part.derived[name] for part in parts]) for name in parts[0].derived
        }
        return found

    def _listed(self, name: str) -> list[Any]:
        if name in self.layout.texts:
            at = self.layout.texts.index(name)
            return [texts[at] for texts in self.texts]
        if name in self.derived:
            return [value if value == value else None for value in self.derived[name].tolist()]
        values, there = self._turned[0][self.layout.place[name]], self._turned[1][self.layout.at[name]]
        as_declared: Callable[[float], Any] = int if name in self.layout.whole else float
        if all(there):
            return list(map(as_declared, values))
        return [as_declared(value) if known else None for value, known in zip(values, there, strict=True)]

    @cached_property
    def _turned(self) -> tuple[list[list[float]], list[list[int]]]:
        """All number features, and whether each feature is there: a list a feature."""
        return self.rows["numbers"].T.tolist(), self.rows["there"].T.tolist()


@lru_cache(64)
def _places(
    layout: Layout, names: tuple[str, ...], derived: tuple[str, ...]
) -> tuple[list[int], list[int], list[tuple[int, str]]]:
    """Of the columns of a matrix: which are stored, where they stand in the rows, and which are derived."""
    stored = [at for at, name in enumerate(names) if name not in derived]
    return (
        stored,
        [layout.place[names[at]] for at in stored],
        [(at, name) for at, name in enumerate(names) if name in derived],
    )


def _is_exact(value: Any) -> bool:
    return type(value) is int and abs(value) <= MOST_EXACT


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

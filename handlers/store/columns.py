"""Features of several customers by columns, as numpy arrays where the store returns packed rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.store.packed import Layout

Columns = Mapping[str, list[Any]]
"""Feature -> a value per customer: int, float or str, None for null. It is `PackedColumns` when all rows are
packed."""


class PackedColumns(Mapping[str, list[Any]]):
    """Columns of packed rows. `[name]` converts a column to a list of Python's values when it is first used;
    scoring, counting and logging read the arrays.
    """

    def __init__(
        self, layout: Layout, rows: NDArray[Any], texts: Sequence[Sequence[str | None]] = ()
    ) -> None:
        """`rows`: [n] of `layout.dtype`; `texts`: the string features of each customer."""
        self.layout = layout
        self.rows = rows
        self.texts = texts
        self.derived: dict[str, NDArray[np.float64]] = {}
        """Name -> float64 [n], NaN for null."""
        self._lists: dict[str, list[Any]] = {}

    @classmethod
    def of(cls, layout: Layout, numbers: Sequence[bytes], texts: Sequence[bytes | None]) -> "PackedColumns":
        """From the columns of the table. Raises ValueError or TypeError when a row is damaged."""
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
        """bool [n]: whether the store has a value; for a derived feature, whether it is a number."""
        if name in self.derived:
            return ~np.isnan(self.derived[name])
        found: NDArray[np.bool_] = self.rows["there"][:, self.layout.at[name]].astype(bool)
        return found

    def matrix(self, names: Sequence[str]) -> NDArray[np.float64]:
        """float64 [n, names], NaN for null: equal to the result of `encoding.encode` on the same columns."""
        found = np.empty((len(self.rows), len(names)))
        stored, places, derived = _places(self.layout, tuple(names), tuple(self.derived))
        found[:, stored] = self.rows["numbers"][:, places]
        for at, name in derived:
            found[:, at] = self.derived[name]
        return found

    def missing(self) -> dict[str, int]:
        """Feature -> number of customers without a value; only features with such customers."""
        counts = len(self.rows) - self.rows["there"].sum(axis=0, dtype=np.int64)
        return {
            name: lacking for name, lacking in zip(self.layout.names, counts.tolist(), strict=True) if lacking
        }

    def taken(self, rows: Sequence[int]) -> "PackedColumns":
        """The customers of these rows; a row that is repeated is repeated in the result."""
        which = np.asarray(rows, dtype=np.intp)
        found = PackedColumns(
            self.layout, self.rows[which], [self.texts[row] for row in rows] if self.texts else ()
        )
        found.derived = {name: column[which] for name, column in self.derived.items()}
        return found

    @staticmethod
    def joined(parts: "Sequence[PackedColumns]") -> "PackedColumns":
        """The customers of all parts, which have one layout, in order."""
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
        """All number features, and whether each feature has a value: a list per feature."""
        return self.rows["numbers"].T.tolist(), self.rows["there"].T.tolist()


@lru_cache(64)
def _places(
    layout: Layout, names: tuple[str, ...], derived: tuple[str, ...]
) -> tuple[list[int], list[int], list[tuple[int, str]]]:
    """The stored columns of a matrix, their places in the rows, and the derived columns."""
    stored = [at for at, name in enumerate(names) if name not in derived]
    return (
        stored,
        [layout.place[names[at]] for at in stored],
        [(at, name) for at, name in enumerate(names) if name in derived],
    )


def joined(parts: Sequence[Columns]) -> Columns:
    """The customers of all parts, which have the same features, in order."""
    packed = [part for part in parts if isinstance(part, PackedColumns)]
    if len(packed) == len(parts):
        return PackedColumns.joined(packed)
    return {name: list(chain.from_iterable(part[name] for part in parts)) for name in parts[0]}

"""The latest vectors of customers, which are used while the store cannot be read."""

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from handlers.store.columns import PackedColumns
from handlers.store.packed import Layout
from handlers.store.stored import Stored

CUSTOMERS = 20_000
"""Customers per worker. With 21 features they take 5 MB if they are packed, else 25 MB."""

Values = tuple[Any, ...]


class _Packed(NamedTuple):
    layout: Layout
    row: bytes
    texts: Sequence[str | None]


class LastKnown:
    """A cache of at most `customers` vectors; the least recently read one is dropped first."""

    def __init__(self, features: Sequence[str], customers: int = CUSTOMERS) -> None:
        self._features = list(features)
        self._customers = customers
        self._rows: OrderedDict[str, tuple[datetime, Values | _Packed]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, ids: Sequence[str], stored: Stored) -> None:
        """Add what was read. Remove customers who are not in the store any more, or are corrupt there."""
        rows = self._rows
        for user_id, moment, row in zip(ids, stored.timestamps, self._rows_of(stored), strict=True):
            if moment is None:
                rows.pop(user_id, None)
            else:
                rows[user_id] = (moment, row)
                rows.move_to_end(user_id)
        while len(rows) > self._customers:
            rows.popitem(last=False)

    def recall(self, ids: Sequence[str]) -> Stored:
        """The result in the form of a read. Customers who are not in the cache have no timestamp."""
        found = [self._rows.get(user_id, (None, ())) for user_id in ids]
        unpacked = iter(self._unpacked([row for _, row in found if isinstance(row, _Packed)]))
        nothing = (None,) * len(self._features)
        values = [next(unpacked) if isinstance(row, _Packed) else row or nothing for _, row in found]
        columns = zip(*values, strict=True)
        return Stored(
            {name: list(column) for name, column in zip(self._features, columns, strict=True)},
            [moment for moment, _ in found],
        )

    def _rows_of(self, stored: Stored) -> Sequence[Values | _Packed]:
        columns = stored.columns
        if not isinstance(columns, PackedColumns):
            return list(zip(*map(columns.__getitem__, self._features), strict=True))
        layout, size, rows = columns.layout, columns.layout.dtype.itemsize, columns.rows.tobytes()
        texts = columns.texts or [()] * len(columns.rows)
        return [
            _Packed(layout, rows[at * size : (at + 1) * size], its_texts)
            for at, its_texts in enumerate(texts)
        ]

    def _unpacked(self, rows: Sequence[_Packed]) -> Sequence[Values]:
        """The values of packed rows. All rows of a store have the same layout."""
        if not rows:
            return ()
        layout = rows[0].layout
        joined = np.frombuffer(b"".join(row.row for row in rows), dtype=layout.dtype)
        columns = PackedColumns(layout, joined, [row.texts for row in rows])
        return list(zip(*map(columns.__getitem__, self._features), strict=True))

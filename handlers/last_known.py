"""The latest vectors that were read, for when the store cannot be."""

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from handlers.stored import Stored

CUSTOMERS = 20_000
"""Kept by each worker, the latest read: with 21 features about 25 MB."""


class LastKnown:
    """A cache of at most `customers` vectors; the one not read for longest goes first."""

    def __init__(self, features: Sequence[str], customers: int = CUSTOMERS) -> None:
        self._features = list(features)
        self._customers = customers
        self._rows: OrderedDict[str, tuple[datetime, tuple[Any, ...]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def keep(self, ids: Sequence[str], stored: Stored) -> None:
        """Remember what was read; forget whom the store no longer knows, or only as corrupt bytes."""
        rows = self._rows
        values = zip(*map(stored.columns.__getitem__, self._features), strict=True)
        for user_id, moment, row in zip(ids, stored.timestamps, values, strict=True):
            if moment is None:
                rows.pop(user_id, None)
            else:
                rows[user_id] = (moment, row)
                rows.move_to_end(user_id)
        while len(rows) > self._customers:
            rows.popitem(last=False)

    def recall(self, ids: Sequence[str]) -> Stored:
        """As a read would have answered; customers who are not remembered have no timestamp."""
        nothing: tuple[None, tuple[Any, ...]] = (None, (None,) * len(self._features))
        found = [self._rows.get(user_id, nothing) for user_id in ids]
        columns = zip(*(row for _, row in found), strict=True)
        return Stored(
            {name: list(column) for name, column in zip(self._features, columns, strict=True)},
            [moment for moment, _ in found],
        )

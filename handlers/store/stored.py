"""The result of a read from an online store, by columns, and the interface of the readers that return it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from handlers.store import columns
from handlers.store.columns import Columns


class FeatureStoreUnavailable(RuntimeError):
    """The store cannot be read now; no customer of this read can be scored from it."""

    def __init__(self, reason: str, retry_after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class UnknownLayout(RuntimeError):
    """The store has a layout that this reader does not support, so Feast itself has to read it."""


@dataclass(frozen=True)
class Stored:
    """The features of n customers, in the order of the requested ids."""

    columns: Columns
    """Null and an absent value are both None."""
    timestamps: list[datetime | None]
    """The event time of each vector (UTC); None for a customer who is not in the store, or in `corrupt`."""
    corrupt: dict[int, str] = field(default_factory=dict)
    """Position -> the reason why this customer's bytes cannot be read. All values there are None."""

    def taken(self, rows: Sequence[int]) -> "Stored":
        """The customers of these rows, each at most once, as lists of Python's values."""
        return Stored(
            {name: [column[at] for at in rows] for name, column in self.columns.items()},
            [self.timestamps[at] for at in rows],
            {to: self.corrupt[at] for to, at in enumerate(rows) if at in self.corrupt},
        )


class Reader(Protocol):
    """One online store, open for reading."""

    name: str

    def read(self, ids: Sequence[str], deadline: float) -> Stored:
        """The vectors of distinct masked ids. Raises FeatureStoreUnavailable, at `deadline` (of
        time.monotonic) at the latest.
        """

    def close(self) -> None: ...


def joined(parts: Sequence[Stored]) -> Stored:
    """All customers of several reads from one store, in order."""
    if len(parts) == 1:
        return parts[0]
    corrupt: dict[int, str] = {}
    before = 0
    for part in parts:
        corrupt |= {before + at: reason for at, reason in part.corrupt.items()}
        before += len(part.timestamps)
    return Stored(
        columns.joined([part.columns for part in parts]),
        [moment for part in parts for moment in part.timestamps],
        corrupt,
    )

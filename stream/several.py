"""The vectors of several feature services at once: those of the models in use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from stream.state import Held


@dataclass(frozen=True)
class Several:
    """A table of vectors for each service, in one order. A customer may be eligible by one service only."""

    tables: tuple[pa.Table, ...]

    @property
    def num_rows(self) -> int:
        """Customers with a vector of the service that has most."""
        return max((table.num_rows for table in self.tables), default=0)


@dataclass(frozen=True)
class ComputeAll:
    """Computes the vectors of each service. Raises FeatureError when an expression of one fails."""

    each: Sequence[Callable[[Held], pa.Table]]

    def __call__(self, held: Held) -> Several:
        return Several(tuple(compute(held) for compute in self.each))


@dataclass(frozen=True)
class PushAll:
    """Pushes the vectors of each service. Raises StoreAway; then all are pushed again, which changes nothing
    where they are already."""

    each: Sequence[Callable[[pa.Table], None]]

    def __call__(self, vectors: Several) -> None:
        for push, table in zip(self.each, vectors.tables, strict=True):
            push(table)

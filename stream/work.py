"""What is done with a batch of messages: read, add to the state, compute, push, confirm.

Each part may be repeated after a fault: a purchase is added once, and a push replaces a whole vector.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from core.errors import FeatureError
from stream.aggregates import microseconds
from stream.purchases import Purchase, Read
from stream.state import Added, Held, State

CUSTOMERS = 1000
"""Customers in a push that no batch of messages caused."""
DIFFERS = "an earlier purchase has this identity and other values"


class Vectors(Protocol):
    """What is computed and pushed: a table, or one for each feature service (stream/several.py)."""

    @property
    def num_rows(self) -> int: ...


V = TypeVar("V", bound=Vectors)


class Reader(Protocol):
    def read(self, messages: Sequence[bytes | None], now_us: int, future_us: int) -> Read: ...


@dataclass
class Outcome:
    """Counts of messages, and which are no purchase."""

    new: int = 0
    repeated: int = 0
    left_out: int = 0
    customers: int = 0
    """Whose vectors were pushed."""
    refused: dict[int, str] = field(default_factory=dict)
    """Position of the message -> why it is no purchase."""


class Work(Generic[V]):
    """The parts that batches go through, in one thread. `clock` gives the present."""

    def __init__(
        self,
        reader: Reader,
        state: State,
        compute: Callable[[Held], V],
        push: Callable[[V], None],
        clock: Callable[[], datetime],
        future_s: float,
    ) -> None:
        self._reader, self._state, self._compute, self._push = reader, state, compute, push
        self._clock, self._future_us = clock, int(future_s * 1e6)

    def apply(self, messages: Sequence[bytes | None]) -> Outcome:
        """Make online what the messages change. Raises StoreAway; the call may then be repeated."""
        read = self._reader.read(messages, self._now(), self._future_us)
        outcome = Outcome(left_out=read.left_out, refused=dict(read.refused))
        if read.purchases:
            self._add(read.purchases, outcome)
        return outcome

    def recover(self) -> int:
        """Push the vectors whose push was not confirmed before this process started; their number."""
        pushed, start = 0, self._now()
        while users := self._state.unconfirmed(CUSTOMERS, start):
            self._touch(users)
            pushed += len(users)
        return pushed

    def refresh(self, at: datetime | None = None, later_than: datetime | None = None) -> int:
        """Compute and push the vectors of all customers of the state anew, as of `at` (default: now); with
        `later_than` only those who have a vector that is later. Returns their number.

        A customer with a vector or purchase after `at` gets a time that is just after it.
        """
        pushed = 0
        after = None if later_than is None else microseconds(later_than)
        for users in self._state.customers(CUSTOMERS, after):
            self._touch(users, at)
            pushed += len(users)
        return pushed

    def _add(self, purchases: Mapping[int, Purchase], outcome: Outcome) -> None:
        places = list(purchases)
        try:
            added, vectors, as_of = self._state.add(list(purchases.values()), self._now(), self._compute)
        except FeatureError as error:
            if len(purchases) == 1:
                outcome.refused[places[0]] = f"features cannot be computed: {error}"
                return
            for place in places:  # one of them is the cause; the others count
                self._add({place: purchases[place]}, outcome)
            return
        self._publish(sorted({purchase.user_id for purchase in purchases.values()}), vectors, as_of)
        self._count(added, places, outcome)
        outcome.customers += vectors.num_rows

    def _publish(self, users: Sequence[str], vectors: V, as_of: int) -> None:
        self._push(vectors)
        # the store compares times before it writes, but not in one step: another consumer's later vector may
        # have been replaced by this one
        overtaken = self._state.confirm(users, as_of)
        while overtaken:
            later: list[str] = []
            for users, vectors, as_of in self._state.newest(overtaken, self._compute):
                self._push(vectors)
                later += self._state.confirm(users, as_of)
            overtaken = later

    def _touch(self, users: Sequence[str], at: datetime | None = None) -> None:
        now = self._now() if at is None else microseconds(at)
        vectors, as_of = self._state.touch(users, now, self._compute)
        self._publish(users, vectors, as_of)

    def _count(self, added: Added, places: Sequence[int], outcome: Outcome) -> None:
        outcome.new += added.new
        outcome.repeated += added.repeated
        outcome.refused |= {places[at]: DIFFERS for at in added.differing}

    def _now(self) -> int:
        return microseconds(self._clock())

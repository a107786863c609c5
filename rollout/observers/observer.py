"""The interface of an observer, and the windows that it is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from rollout.evidence import Evidence


@dataclass(frozen=True)
class Opened:
    """A window as the state of a rollout contains it: its times, and the proxy's counters at begin and end.

    Counters are stored and not differences, so that nothing is lost when a controller dies in between.
    """

    weight: int
    mirror: bool
    begun: datetime
    ended: datetime | None = None
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] | None = None


class Observer(Protocol):
    """Raises ServingError when its source cannot be reached, which is neither evidence nor harm."""

    def mark(self) -> dict[str, float]:
        """The proxy's counters now, for `Opened.before` and `after`."""

    def observe(self, windows: Sequence[Opened], now: datetime) -> Evidence:
        """The evidence of these windows; the last one may be open."""

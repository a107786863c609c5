"""Where evidence comes from: counters of the proxy, and the prediction log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from rollout.evidence import Evidence


@dataclass(frozen=True)
class Opened:
    """A window as the state remembers it: when it stood, and the proxy's counters at its edges.

    Counters are kept, not differences, so that a controller that died in between has lost nothing.
    """

    weight: int
    mirror: bool
    begun: datetime
    ended: datetime | None = None
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] | None = None


class Observer(Protocol):
    """Raises ServingError when its source cannot be reached: that is no evidence, and no harm either."""

    def mark(self) -> dict[str, float]:
        """The proxy's counters now: what `Opened.before` and `after` hold."""

    def observe(self, windows: Sequence[Opened], now: datetime) -> Evidence:
        """All that is known of these windows; the last one may be open."""

"""What is known of two variants: plain data that rules judge, however it was gathered.

A rollout is a sequence of windows, each of one weight. Rules that add up over windows must treat each for
itself: who reached the canary depends on the window's weight, so totals over windows compare unlike crowds.
A window is cut into blocks of time, because requests of one moment are slow, or fail, together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def none() -> Floats:
    return np.empty(0)


@dataclass(frozen=True)
class Labelled:
    """Scores whose outcome is known by now."""

    scores: Floats = field(default_factory=none)
    churned: Floats = field(default_factory=none)
    """0 or 1, in the order of `scores`."""


def no_counts() -> Floats:
    return np.empty((0, 0))


@dataclass(frozen=True)
class Tries:
    """Requests of each block, and those to which something happened. [B] both."""

    asked: Floats = field(default_factory=none)
    events: Floats = field(default_factory=none)

    @classmethod
    def joined(cls, parts: "Sequence[Tries]") -> "Tries":
        if not parts:
            return cls()
        asked, events = (np.concatenate([getattr(part, of) for part in parts]) for of in ("asked", "events"))
        return cls(asked, events)

    def rows(self, chosen: slice | NDArray[np.bool_]) -> "Tries":
        return Tries(self.asked[chosen], self.events[chosen])


@dataclass(frozen=True)
class Blocks:
    """What one variant did in each block of time of a window, both variants' blocks being the same. Only
    blocks that are over are here: one that still grows would be judged before its end."""

    requests: Floats = field(default_factory=none)
    """[B]"""
    errors: Floats = field(default_factory=none)
    """[B] customers whose first failure of the rollout this was; requests where customers are not known."""
    edges_ms: tuple[float, ...] = ()
    within: Floats = field(default_factory=no_counts)
    """[B, E] requests that took at most so long; the last edge is infinite."""

    def failed(self) -> "Tries":
        return Tries(self.requests, np.minimum(self.errors, self.requests))

    def slower(self, edge_ms: float) -> "Tries":
        """Beyond the first edge from `edge_ms` on; of no request where no finite edge is so high."""
        at = int(np.searchsorted(self.edges_ms, edge_ms))
        if at >= len(self.edges_ms) - 1:
            return Tries(np.zeros(len(self.requests)), np.zeros(len(self.requests)))
        timed = self.within[:, -1]
        return Tries(timed, timed - self.within[:, at])

    def plus(self, other: "Blocks") -> "Blocks":
        """Of two names that the proxy counts one variant by."""
        if not len(other.requests) or self.edges_ms != other.edges_ms:
            return self if len(self.requests) else other
        if not len(self.requests):
            return other
        return Blocks(
            self.requests + other.requests,
            self.errors + other.errors,
            self.edges_ms,
            self.within + other.within,
        )


@dataclass(frozen=True)
class Arm:
    """What one variant did in one window. Zeros where nothing is known."""

    requests: int = 0
    """That the proxy sent it; in a shadow window those mirrored count for the canary."""
    errors: int = 0
    """Of them: answered 5xx, cut, or not answered in time."""
    failing: int | None = None
    """Customers with a failed request, each counted once a rollout, when they first failed: who asks again
    and again fails again and again. None: not known, as on a cluster, where each request is dealt anew."""
    slow: int = 0
    """Of them: slower than the plan's latency objective."""
    p99_ms: float | None = None
    latency_ms: Mapping[float, int] = field(default_factory=dict)
    """Histogram of the proxy, cumulative like Prometheus': edge in ms -> requests that took at most so long.
    Shown; what is judged are `blocks`."""
    blocks: Blocks = field(default_factory=Blocks)
    customers: int = 0
    """Scored, by the prediction log."""
    missing: int = 0
    """Of them: with a feature that the store lacks."""
    stale: int = 0
    degraded: int = 0
    high_risk: int = 0
    """Of them: decided `High Risk`."""
    scores: Floats = field(default_factory=none)
    """In the order of time, one a scored customer."""
    segments: Mapping[str, Floats] = field(default_factory=dict)
    """`column=value` -> the scores of its customers; segments in the order in which they appeared."""
    labelled: Labelled = field(default_factory=Labelled)


@dataclass(frozen=True)
class Window:
    """One weight, for as long as it stood."""

    weight: int
    """Percent of the requests that the canary answers to a caller."""
    mirror: bool = False
    """Whether requests of stable were copied to the canary, whose answers nobody saw."""
    seconds: float = 0.0
    stable: Arm = Arm()
    canary: Arm = Arm()
    pairs: Floats = field(default_factory=none)
    """Canary's score minus stable's of the same request and customer, in the order of time."""


@dataclass(frozen=True)
class Evidence:
    """All windows so far, the present one last."""

    windows: tuple[Window, ...] = ()

    @property
    def current(self) -> Window:
        return self.windows[-1] if self.windows else Window(0)

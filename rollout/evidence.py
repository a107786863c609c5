"""The evidence of both variants: plain data that rules judge, whatever its source is.

A rollout is a sequence of windows, each of one weight. Rules compare the variants within each window: which
customers reach the canary depends on the weight, so totals over windows would compare different groups of
customers. A window is divided into blocks of time, because requests of one moment are slow, or fail,
together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def none() -> Floats:
    return np.empty(0)


@dataclass(frozen=True)
class Labelled:
    """Scores whose outcome is known."""

    scores: Floats = field(default_factory=none)
    churned: Floats = field(default_factory=none)
    """0 or 1, in the order of `scores`."""


def no_counts() -> Floats:
    return np.empty((0, 0))


@dataclass(frozen=True)
class Tries:
    """Requests of each block of time, and how many of them had an event. [B] both."""

    total: Floats = field(default_factory=none)
    events: Floats = field(default_factory=none)

    @classmethod
    def joined(cls, parts: "Sequence[Tries]") -> "Tries":
        if not parts:
            return cls()
        total, events = (np.concatenate([getattr(part, of) for part in parts]) for of in ("total", "events"))
        return cls(total, events)

    def rows(self, chosen: slice | NDArray[np.bool_]) -> "Tries":
        return Tries(self.total[chosen], self.events[chosen])


@dataclass(frozen=True)
class Blocks:
    """Counts of one variant in each block of time of a window; the blocks of both variants are the same. Only
    complete blocks are included."""

    requests: Floats = field(default_factory=none)
    """[B]"""
    errors: Floats = field(default_factory=none)
    """[B] customers with their first failure of the rollout; failed requests where customers are not
    known."""
    edges_ms: tuple[float, ...] = ()
    within: Floats = field(default_factory=no_counts)
    """[B, E] requests that took at most as long as each edge; the last edge is infinite."""

    def failed(self) -> "Tries":
        return Tries(self.requests, np.minimum(self.errors, self.requests))

    def slower(self, edge_ms: float) -> "Tries":
        """Requests beyond the first edge that is at least `edge_ms`; zeros where no finite edge is."""
        at = int(np.searchsorted(self.edges_ms, edge_ms))
        if at >= len(self.edges_ms) - 1:
            return Tries(np.zeros(len(self.requests)), np.zeros(len(self.requests)))
        timed = self.within[:, -1]
        return Tries(timed, timed - self.within[:, at])

    def plus(self, other: "Blocks") -> "Blocks":
        """The sum, for a variant that the proxy counts under two names."""
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


def count(*, of_proxy: bool = False, after_promotion: bool = True) -> Any:
    """A field of `Arm` with one number. The database stores it and commands show it by the field's name.

    `of_proxy`: it is a counter of the proxy, which only grows, and restarts with the proxy. Other counts are
    of the prediction log. `after_promotion`: it is also part of the evidence after promotion
    (rollout/aftermath.py), where rules compare the model with stable's past.
    """
    return field(
        default=0, metadata={"count": True, "of_proxy": of_proxy, "after_promotion": after_promotion}
    )


@dataclass(frozen=True)
class Arm:
    """Counts of one variant in one window. Zeros where nothing is known."""

    requests: int = count(of_proxy=True)
    """Requests that the proxy sent to the variant. In a shadow window, mirrored requests count for the
    canary."""
    errors: int = count(of_proxy=True)
    """Requests answered with 5xx, cut off, or not answered in time."""
    failing: int | None = None
    """Customers with a failed request. Each counts once a rollout, at the first failure, because clients
    retry. None: not known, as on a cluster, where each request is assigned to a variant independently."""
    slow: int = count(of_proxy=True)
    """Requests slower than the plan's latency objective."""
    p99_ms: float | None = None
    latency_ms: Mapping[float, int] = field(default_factory=dict)
    """Histogram of the proxy, cumulative as in Prometheus: edge in ms -> requests that took at most so long.
    It is shown; rules judge `blocks`."""
    blocks: Blocks = field(default_factory=Blocks)
    customers: int = count()
    """Scored customers in the prediction log."""
    missing: int = count()
    """Scored customers with a feature that the store lacks."""
    stale: int = count()
    degraded: int = count()
    high_risk: int = count(after_promotion=False)
    """Scored customers with the decision `High Risk`."""
    scores: Floats = field(default_factory=none)
    """In the order of time, one for each scored customer."""
    segments: Mapping[str, Floats] = field(default_factory=dict)
    """`column=value` -> the scores of its customers; in the order in which the segments appeared."""
    labelled: Labelled = field(default_factory=Labelled)


def _marked(mark: str) -> tuple[str, ...]:
    return tuple(one.name for one in fields(Arm) if one.metadata.get(mark))


COUNTS = _marked("count")
"""In the order of `Arm`, which is the order of their output."""
PROXY_COUNTS = _marked("of_proxy")
COUNTS_AFTER_PROMOTION = _marked("after_promotion")


@dataclass(frozen=True)
class Window:
    """A period of a rollout in which the weight does not change."""

    weight: int
    """Percent of the requests whose answer to the client is the canary's."""
    mirror: bool = False
    """Whether stable's requests were copied to the canary, whose answers were thrown away."""
    seconds: float = 0.0
    stable: Arm = Arm()
    canary: Arm = Arm()
    pairs: Floats = field(default_factory=none)
    """Canary's score minus stable's for the same request and customer, in the order of time."""


@dataclass(frozen=True)
class Evidence:
    """All windows so far, the present one last."""

    windows: tuple[Window, ...] = ()

    @property
    def current(self) -> Window:
        return self.windows[-1] if self.windows else Window(0)

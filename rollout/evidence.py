"""What is known of two variants: plain data that rules judge, however it was gathered.

A rollout is a sequence of windows, each of one weight. Rules that add up over windows must treat each for
itself: who reached the canary depends on the window's weight, so totals over windows compare unlike crowds.
"""

from collections.abc import Mapping
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


@dataclass(frozen=True)
class Arm:
    """What one variant did in one window. Zeros where nothing is known."""

    requests: int = 0
    """That the proxy sent it; in a shadow window those mirrored count for the canary."""
    errors: int = 0
    """Of them: answered 5xx, cut, or not answered in time."""
    slow: int = 0
    """Of them: slower than the plan's latency objective."""
    p99_ms: float | None = None
    latency_ms: Mapping[float, int] = field(default_factory=dict)
    """Histogram of the proxy, cumulative like Prometheus': edge in ms -> requests that took at most so long.
    Without it the ratio of p99s is shown and not judged: two p99s alone say nothing of chance."""
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
    """`column=value` -> the scores of its customers, in the order of time."""
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

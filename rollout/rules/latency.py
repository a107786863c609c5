"""Slow requests, in blocks of time."""

import math
from bisect import bisect_left
from dataclasses import dataclass, field

import numpy as np
from pydantic import Field

from core.config import Config
from rollout.evidence import Arm, Blocks, Evidence, Floats, Tries, Window
from rollout.rules.answer import Found, answer, unreadable
from rollout.rules.blocks import before_after, both, one_after_the_other, side_by_side
from rollout.rules.events import Kind, described, problem
from rollout.rules.rule import Verdict
from rollout.statistics.e_values import mean_evidence
from rollout.statistics.sign_test import excess_in_blocks

SLOW = Kind("slow requests", lambda arm: arm.requests, lambda arm: arm.slow)
P99 = 0.01
"""The share of requests beyond the p99."""


class Latency(Config):
    objective_ms: float = Field(250, gt=0)
    """A request that takes longer is slow."""
    tolerance: float = Field(0.01, ge=0, lt=1)
    """By how much the share of slow requests may be larger than stable's."""
    max_p99_ratio: float = Field(1.5, gt=1)
    """How many times stable's p99 the canary's may be. Changes below the p99 are no harm to this rule."""
    min_requests: int = Field(500, gt=0)
    """Requests to stable before its p99 is known well enough to compare with."""


class LatencyRule:
    """Harm: the share of requests slower than the objective is above stable's plus the tolerance, or the p99
    is more than `max_p99_ratio` times stable's. Each may spend half of alpha.

    The p99: let x be the first edge of the histogram at or above stable's p99, as known before a block began.
    Of the same number of requests in that block, no more of the canary's may take longer than ratio * x
    (rounded up to an edge) than of stable's take longer than x. A change below the p99, of the median for
    example, is no harm. Without a histogram the two p99s are shown and not judged.

    Blocks are compared, not requests (rollout/statistics/sign_test.py): a stall slows all requests of a
    moment.
    """

    name = "latency"

    def __init__(self, config: Latency) -> None:
        self.config = config

    def judge(self, evidence: Evidence, alpha: float) -> Verdict:
        if damage := problem(evidence, SLOW) or _histogram_problem(evidence):
            return unreadable(self.name, damage)
        slow = both(
            side_by_side(evidence, self._slow, self.config.tolerance),
            before_after(evidence, self._slow, self.config.tolerance),
        )
        tail = self._tail(evidence)
        found = described(evidence, SLOW, float(mean_evidence([slow, tail])))
        ratio = _ratio(evidence.current)
        numbers = {**found.numbers, **({} if ratio is None else {"p99_ratio": ratio})}
        summary = found.summary + ("" if ratio is None else f", p99 {ratio:.2f} times stable's")
        if found.log_e >= -math.log(alpha) and tail > slow:
            summary += f"; its p99 is more than {self.config.max_p99_ratio:g} times stable's"
        return answer(self.name, Found(found.log_e, summary, found.waiting, numbers), alpha)

    def _slow(self, arm: Arm) -> Tries:
        """Requests of each block that took longer than the objective; without blocks the window is one
        block."""
        if len(arm.blocks.requests) or not arm.requests:
            return arm.blocks.slower(self.config.objective_ms)
        return Tries(np.array([float(arm.requests)]), np.array([float(arm.slow)]))

    def _tail(self, evidence: Evidence) -> float:
        """Log e-value of a p99 beyond the ratio, over all windows."""
        tail = Tail(self.config.max_p99_ratio, self.config.min_requests)
        beside = [tail.beside(window) for window in evidence.windows]
        canary, stable = (Tries.joined([both[which] for both in beside]) for which in (0, 1))
        alone = Tries.joined([tail.alone(w.canary.blocks) for w in evidence.windows if w.weight == 100])
        before = Tries.joined(tail.before)
        return both(excess_in_blocks(canary, stable), one_after_the_other(alone, before, 0.0))


@dataclass
class Tail:
    """Requests beyond stable's p99, for each block by the requests before it."""

    ratio: float
    minimum: int
    edges: tuple[float, ...] = ()
    counts: Floats = field(default_factory=lambda: np.zeros(0))
    first: float | None = None
    """The first p99 that was known, by which the times before and after weight 100 are compared."""
    before: list[Tries] = field(default_factory=list)
    """Stable's requests beyond `first`, in the blocks since then."""

    def beside(self, window: Window) -> tuple[Tries, Tries]:
        """The canary's requests beyond ratio * x, and stable's beyond x; zeros until x is known."""
        canary, stable = window.canary.blocks, window.stable.blocks
        size = len(stable.requests)
        found = np.zeros((4, size))
        if not stable.edges_ms:
            return Tries(), Tries()
        if stable.edges_ms != self.edges:  # the proxy was restarted with another objective
            self.edges, self.counts = stable.edges_ms, np.zeros(len(stable.edges_ms))
        begun = None
        for block in range(size):
            x = self._p99()
            if x is not None:
                self.first = x if self.first is None else self.first
                begun = block if begun is None else begun
                if canary.edges_ms == stable.edges_ms:
                    found[:2, block] = _beyond(canary, block, self.ratio * x)
                    found[2:, block] = _beyond(stable, block, x)
            self.counts = self.counts + stable.within[block]
        if begun is not None and self.first is not None and window.weight < 100:
            self.before.append(stable.slower(self.first).rows(slice(begun, None)))
        return Tries(found[0], found[1]), Tries(found[2], found[3])

    def alone(self, blocks: Blocks) -> Tries:
        return Tries() if self.first is None else blocks.slower(self.ratio * self.first)

    def _p99(self) -> float | None:
        """The first edge beyond which at most a hundredth of stable's requests are, so far."""
        timed = self.counts[-1]
        if timed < self.minimum:
            return None
        at = int(np.argmax(self.counts >= (1 - P99) * timed))
        return self.edges[at] if math.isfinite(self.edges[at]) else None


def _beyond(blocks: Blocks, block: int, edge_ms: float) -> tuple[float, float]:
    at = bisect_left(blocks.edges_ms, edge_ms)
    if at >= len(blocks.edges_ms) - 1:
        return 0.0, 0.0
    timed = blocks.within[block, -1]
    return float(timed), float(timed - blocks.within[block, at])


def _histogram_problem(evidence: Evidence) -> str | None:
    for number, window in enumerate(evidence.windows, start=1):
        for name, arm in (("stable", window.stable), ("canary", window.canary)):
            counts = np.array([arm.latency_ms[edge] for edge in sorted(arm.latency_ms)], dtype=np.float64)
            if len(counts) and not (np.isfinite(counts).all() and (np.diff(counts, prepend=0) >= 0).all()):
                return f"window {number}, {name}: latency_ms does not grow with its edges"
            within = arm.blocks.within
            if not np.isfinite(within).all() or (np.diff(within, axis=1, prepend=0) < 0).any():
                return f"window {number}, {name}: the histogram of a block does not grow with its edges"
            if arm.p99_ms is not None and math.isnan(arm.p99_ms):
                return f"window {number}, {name}: p99_ms is NaN"
    return None


def _ratio(window: Window) -> float | None:
    if not window.canary.p99_ms or not window.stable.p99_ms:
        return None
    return window.canary.p99_ms / window.stable.p99_ms

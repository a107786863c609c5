"""Requests that took too long."""

import math
from bisect import bisect_left

import numpy as np

from rollout.config import Latency
from rollout.evidence import Arm, Evidence, Window
from rollout.rules.answer import Found, answer, unreadable
from rollout.rules.events import Kind, compare, problem
from rollout.rules.rule import Verdict
from rollout.sequential import Counts, excess_events, mean_evidence

SLOW = Kind("slow requests", lambda arm: arm.requests, lambda arm: arm.slow)


class LatencyRule:
    """Harm: more requests slower than the objective than stable has plus the tolerance, or a slower tail.

    Two p99s alone say nothing of chance, so the tail is judged by the proxy's histogram: with a ratio k
    allowed, no larger share of the canary's requests may take longer than k times x than of stable's take
    longer than x, for any bucket edge x. At stable's p99 that says: p99(canary) <= k p99(stable). The
    e-values of all edges are averaged, so that nothing is lost by looking at many; k times x is rounded up
    to an edge. Each of the two harms spends half of alpha. Without a histogram p99s are shown, not judged.
    """

    name = "latency"

    def __init__(self, config: Latency) -> None:
        self.config = config

    def judge(self, evidence: Evidence, alpha: float) -> Verdict:
        if damage := problem(evidence, SLOW) or _histogram_problem(evidence):
            return unreadable(self.name, damage)
        slow = compare(evidence, SLOW, self.config.tolerance)
        tail = self._tail(evidence)
        current = evidence.current
        ratio = _ratio(current)
        numbers = {**slow.numbers, **({} if ratio is None else {"p99_ratio": ratio})}
        said = slow.said + ("" if ratio is None else f", p99 {ratio:.2f} times stable's")
        log_e = float(mean_evidence([slow.log_e, tail]))
        if log_e >= -math.log(alpha) and tail > slow.log_e:
            said += f"; its tail is more than {self.config.max_p99_ratio:g} times slower"
        found = Found(log_e, said, slow.waiting, numbers)
        return answer(self.name, found, alpha)

    def _tail(self, evidence: Evidence) -> float:
        """Log e-value of a tail more than `max_p99_ratio` times slower, over all windows and edges."""
        windows = [window for window in evidence.windows if self._comparable(window)]
        edges = sorted({edge for window in windows for edge in _edges(window)})
        if not edges:
            return 0.0
        each = [excess_events([self._slower(window, edge) for window in windows]) for edge in edges]
        return float(mean_evidence(each))

    def _comparable(self, window: Window) -> bool:
        arms = (window.stable, window.canary)
        return all(arm.latency_ms and _timed(arm) >= self.config.min_requests for arm in arms)

    def _slower(self, window: Window, edge: float) -> Counts:
        """Stable's requests slower than `edge`, and the canary's slower than the allowed multiple of it."""
        edges = _edges(window)
        at = bisect_left(edges, edge * self.config.max_p99_ratio)
        if edge not in window.stable.latency_ms or at == len(edges):
            return Counts(0, 0, 0, 0)
        canary, stable = _timed(window.canary), _timed(window.stable)
        return Counts(
            canary,
            canary - window.canary.latency_ms[edges[at]],
            stable,
            stable - window.stable.latency_ms[edge],
        )


def _edges(window: Window) -> list[float]:
    """Those that both variants were counted by, ascending."""
    both = window.stable.latency_ms.keys() & window.canary.latency_ms.keys()
    return sorted(edge for edge in both if math.isfinite(edge))


def _timed(arm: Arm) -> int:
    """Requests in the histogram; they are more than it shows where the slowest passed its last edge."""
    return max(arm.latency_ms.get(math.inf, arm.requests), *arm.latency_ms.values())


def _histogram_problem(evidence: Evidence) -> str | None:
    for number, window in enumerate(evidence.windows, start=1):
        for name, arm in (("stable", window.stable), ("canary", window.canary)):
            counts = np.array([arm.latency_ms[edge] for edge in sorted(arm.latency_ms)], dtype=np.float64)
            if len(counts) and not (np.isfinite(counts).all() and (np.diff(counts, prepend=0) >= 0).all()):
                return f"window {number}, {name}: latency_ms does not grow with its edges"
            if arm.p99_ms is not None and math.isnan(arm.p99_ms):
                return f"window {number}, {name}: p99_ms is NaN"
    return None


def _ratio(window: Window) -> float | None:
    if not window.canary.p99_ms or not window.stable.p99_ms:
        return None
    return window.canary.p99_ms / window.stable.p99_ms

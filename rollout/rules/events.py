"""Comparison of one kind of event over all windows of a rollout, for the rules about counts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rollout.evidence import Arm, Evidence, Window
from rollout.rules.answer import Found
from rollout.statistics.bounded_means import Histogram, excess_mean
from rollout.statistics.e_values import in_order, mean_evidence
from rollout.statistics.event_rates import Counts, excess_events

BEFORE_AFTER_SHARE = 0.1
"""The weight of the evidence from times at which the canary served alone. It compares different times, which
may differ for other reasons, so that only obvious harm reaches the bound by it."""


@dataclass(frozen=True)
class Kind:
    """A kind of event: of how many requests (or customers), and how many of them had it."""

    name: str
    total: Callable[[Arm], float]
    events: Callable[[Arm], float]


def problem(evidence: Evidence, kind: Kind) -> str | None:
    """Why these counts are impossible; None: they are possible."""
    for number, window in enumerate(evidence.windows, start=1):
        for name, arm in (("stable", window.stable), ("canary", window.canary)):
            total, events = kind.total(arm), kind.events(arm)
            if not (math.isfinite(total) and 0 <= events <= total):  # NaN fails every comparison
                return f"window {number}, {name}: {events:g} {kind.name} of {total:g}"
    return None


def compare(evidence: Evidence, kind: Kind, tolerance: float, minimum: int = 1) -> Found:
    """Compares customers of both variants within each window. Most customers of one window occur in the next
    one too, in the same state, so that windows are averaged and not multiplied (`in_order`).

    At weight 100, and after promotion, the canary is compared with stable in the last window before. An
    outage after that window counts against the canary, which is the safe side.
    """
    side_by_side = in_order(
        [
            excess_events([_counts(window, kind)], tolerance)
            for window in evidence.windows
            if kind.total(window.canary) and kind.total(window.stable)
        ]
    )
    log_e = mean_evidence(
        [side_by_side, _before_after(evidence, kind, tolerance)], [1 - BEFORE_AFTER_SHARE, BEFORE_AFTER_SHARE]
    )
    return described(evidence, kind, float(log_e), minimum)


def described(evidence: Evidence, kind: Kind, log_e: float, minimum: int = 1) -> Found:
    """The shares in the present window, and the data that are still missing."""
    current = evidence.current
    before = [window.stable for window in evidence.windows if kind.total(window.stable)]
    beside = [current.stable] if kind.total(current.stable) else before
    canary, stable = _rate([current.canary], kind), _rate(beside, kind)
    total = kind.total(current.canary)
    seen = sum(kind.total(window.canary) for window in evidence.windows)
    waiting = None
    if not total or seen < minimum:
        waiting = f"{kind.name}: {seen:g} seen on the canary, {total:g} in this stage; {minimum} needed"
    elif not before:
        waiting = f"{kind.name}: stable has answered nothing to compare with"
    summary = f"{kind.name} {canary:.2%} of {total:g} on the canary, {stable:.2%} on stable"
    return Found(log_e, summary, waiting, {"canary": canary, "stable": stable, "canary_count": total})


def _counts(window: Window, kind: Kind) -> Counts:
    canary, stable = window.canary, window.stable
    return Counts(kind.total(canary), kind.events(canary), kind.total(stable), kind.events(stable))


def _before_after(evidence: Evidence, kind: Kind, tolerance: float) -> float:
    """Log e-value of the canary at weight 100, compared with stable in its last window."""
    before = [window.stable for window in evidence.windows if kind.total(window.stable)]
    alone = [w.canary for w in evidence.windows if w.weight == 100 and kind.total(w.canary)]
    if not before:
        return 0.0
    stable = _outcomes(before[-1], kind)
    return float(in_order([excess_mean(_outcomes(one, kind), stable, tolerance) for one in alone]))


def _outcomes(arm: Arm, kind: Kind) -> Histogram:
    total, events = float(kind.total(arm)), float(kind.events(arm))
    return Histogram(np.array([0.0, 1.0]), np.array([total - events, events]))


def _rate(arms: Sequence[Arm], kind: Kind) -> float:
    total = sum(kind.total(arm) for arm in arms)
    return sum(kind.events(arm) for arm in arms) / total if total else math.nan

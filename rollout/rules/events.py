"""What the rules about counts of customers share: one kind of event, over all windows of a rollout."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rollout.bounded import Histogram, excess_mean
from rollout.evidence import Arm, Evidence, Window
from rollout.rules.answer import Found
from rollout.sequential import Counts, excess_events, in_order, mean_evidence

BEFORE_AFTER_SHARE = 0.1
"""The part of the evidence that may come from a canary with nobody beside it. It compares different times, so
it is left for harm that cannot be missed."""


@dataclass(frozen=True)
class Kind:
    """Which requests (or customers) are counted, and what happened to them."""

    name: str
    asked: Callable[[Arm], float]
    events: Callable[[Arm], float]


def problem(evidence: Evidence, kind: Kind) -> str | None:
    """Why these counts cannot be true."""
    for number, window in enumerate(evidence.windows, start=1):
        for name, arm in (("stable", window.stable), ("canary", window.canary)):
            asked, events = kind.asked(arm), kind.events(arm)
            if not (math.isfinite(asked) and 0 <= events <= asked):  # NaN fails every comparison
                return f"window {number}, {name}: {events:g} {kind.name} of {asked:g}"
    return None


def compare(evidence: Evidence, kind: Kind, tolerance: float, minimum: int = 1) -> Found:
    """Customers of both variants side by side, each window for itself: most customers of one window ask in
    the next one too, in the same state, so that windows are averaged and never multiplied (`in_order`).

    At weight 100, and after promotion, the canary is compared with the stable of the last split: an outage of
    that time is laid to the canary, which is the safe side.
    """
    side_by_side = in_order(
        [
            excess_events([_counts(window, kind)], tolerance)
            for window in evidence.windows
            if kind.asked(window.canary) and kind.asked(window.stable)
        ]
    )
    log_e = mean_evidence(
        [side_by_side, _before_after(evidence, kind, tolerance)], [1 - BEFORE_AFTER_SHARE, BEFORE_AFTER_SHARE]
    )
    return described(evidence, kind, float(log_e), minimum)


def described(evidence: Evidence, kind: Kind, log_e: float, minimum: int = 1) -> Found:
    """The shares of the present window, and what it still waits for."""
    current = evidence.current
    before = [window.stable for window in evidence.windows if kind.asked(window.stable)]
    beside = [current.stable] if kind.asked(current.stable) else before
    canary, stable = _rate([current.canary], kind), _rate(beside, kind)
    asked = kind.asked(current.canary)
    seen = sum(kind.asked(window.canary) for window in evidence.windows)
    waiting = None
    if not asked or seen < minimum:
        waiting = f"{kind.name}: {seen:g} seen on the canary, {asked:g} in this stage; {minimum} needed"
    elif not before:
        waiting = f"{kind.name}: stable has answered nothing to compare with"
    said = f"{kind.name} {canary:.2%} of {asked:g} on the canary, {stable:.2%} on stable"
    return Found(log_e, said, waiting, {"canary": canary, "stable": stable, "canary_count": asked})


def _counts(window: Window, kind: Kind) -> Counts:
    canary, stable = window.canary, window.stable
    return Counts(kind.asked(canary), kind.events(canary), kind.asked(stable), kind.events(stable))


def _before_after(evidence: Evidence, kind: Kind, tolerance: float) -> float:
    """Log e-value of the canary alone against what stable did while it was asked last."""
    before = [window.stable for window in evidence.windows if kind.asked(window.stable)]
    alone = [w.canary for w in evidence.windows if w.weight == 100 and kind.asked(w.canary)]
    if not before:
        return 0.0
    stable = _outcomes(before[-1], kind)
    return float(in_order([excess_mean(_outcomes(one, kind), stable, tolerance) for one in alone]))


def _outcomes(arm: Arm, kind: Kind) -> Histogram:
    asked, events = float(kind.asked(arm)), float(kind.events(arm))
    return Histogram(np.array([0.0, 1.0]), np.array([asked - events, events]))


def _rate(arms: Sequence[Arm], kind: Kind) -> float:
    asked = sum(kind.asked(arm) for arm in arms)
    return sum(kind.events(arm) for arm in arms) / asked if asked else math.nan

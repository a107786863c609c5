"""What the rules about counts share: one kind of event, over all windows of a rollout."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rollout.bounded import Histogram, excess_mean
from rollout.evidence import Arm, Evidence
from rollout.rules.answer import Found
from rollout.sequential import Counts, excess_events, mean_evidence

ALONE = 0.1
"""The part of the evidence that may come from a canary with nobody beside it. It compares different times, so
it is kept for harm that cannot be missed."""


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
    """Both variants side by side within each window; at weight 100, the canary with the stable of before.

    The comparison with before takes the rate of stable for what it would be now: an outage at weight 100 is
    laid to the canary, which is the safe side.
    """
    windows = [window for window in evidence.windows if kind.asked(window.canary)]
    together = excess_events(
        [
            Counts(kind.asked(w.canary), kind.events(w.canary), kind.asked(w.stable), kind.events(w.stable))
            for w in windows
            if kind.asked(w.stable)
        ],
        tolerance,
    )
    alone = [window.canary for window in windows if window.weight == 100]
    before = [window.stable for window in evidence.windows if kind.asked(window.stable)]
    since = _after(alone, before, kind, tolerance)
    log_e = float(mean_evidence([together, since], [1 - ALONE, ALONE]))

    current = evidence.current
    beside = [current.stable] if kind.asked(current.stable) else before
    canary, stable = _rate([current.canary], kind), _rate(beside, kind)
    asked = kind.asked(current.canary)
    seen = sum(kind.asked(window.canary) for window in windows)
    waiting = None
    if not asked or seen < minimum:
        waiting = f"{kind.name}: {seen:g} seen on the canary, {asked:g} in this stage; {minimum} needed"
    elif not before:
        waiting = f"{kind.name}: stable has answered nothing to compare with"
    said = f"{kind.name} {canary:.2%} of {asked:g} on the canary, {stable:.2%} on stable"
    return Found(log_e, said, waiting, {"canary": canary, "stable": stable, "canary_count": asked})


def _after(canary: Sequence[Arm], stable: Sequence[Arm], kind: Kind, tolerance: float) -> float:
    """Log e-value of the canary alone against what stable did while it was asked."""
    if not canary or not stable:
        return 0.0
    return float(excess_mean(_outcomes(canary, kind), _outcomes(stable, kind), tolerance))


def _outcomes(arms: Sequence[Arm], kind: Kind) -> Histogram:
    asked, events = (float(sum(of(arm) for arm in arms)) for of in (kind.asked, kind.events))
    return Histogram(np.array([0.0, 1.0]), np.array([asked - events, events]))


def _rate(arms: Sequence[Arm], kind: Kind) -> float:
    asked = sum(kind.asked(arm) for arm in arms)
    return sum(kind.events(arm) for arm in arms) / asked if asked else math.nan

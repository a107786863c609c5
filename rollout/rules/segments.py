"""A shift of the mean score of some customers only."""

import numpy as np
from pydantic import Field

from core.config import Config
from rollout.evidence import Evidence, Floats
from rollout.rules.answer import Found, answer, unreadable
from rollout.rules.rule import Verdict
from rollout.rules.shifts import Pair, outside, shift
from rollout.statistics.e_values import in_order


class Segments(Config):
    tolerance: float = Field(0.10, gt=0, lt=1)
    """By how much a segment's mean score may differ from stable's."""
    min_customers: int = Field(50, gt=0)
    """Customers of a segment scored by the canary before it is judged."""


class SegmentsRule:
    """Harm: in a segment the mean score differs from stable's by more than the tolerance.

    Segments share alpha in the order in which they appeared (`in_order`): a later one does not change the
    share of an earlier one. A segment is judged where both variants have enough of its customers.
    """

    name = "segments"

    def __init__(self, config: Segments) -> None:
        self.config = config

    def judge(self, evidence: Evidence, alpha: float) -> Verdict:
        arms = [arm for window in evidence.windows for arm in (window.stable, window.canary)]
        for arm in arms:
            for segment, scores in arm.segments.items():
                if outside(scores, 0, 1):
                    return unreadable(self.name, f"{segment}: a score is NaN or outside of [0, 1]")
        seen = list(dict.fromkeys(segment for arm in arms for segment in arm.segments))
        compared = {segment: self._compared(evidence, segment) for segment in seen}
        compared = {
            segment: each for segment, each in compared.items() if any(len(one.canary) for one in each)
        }
        if not compared:
            few = f"fewer than {self.config.min_customers} customers in each of {len(seen)} segments"
            return Verdict(self.name, "advance", few if seen else "no segments")
        found = {segment: shift(windows, self.config.tolerance) for segment, windows in compared.items()}
        log_e = float(in_order([found.get(segment, 0.0) for segment in seen]))
        worst = max(found, key=found.__getitem__)
        return answer(self.name, _described(worst, compared[worst], log_e, len(seen)), alpha)

    def _compared(self, evidence: Evidence, segment: str) -> list[Pair]:
        none: Floats = np.empty(0)
        pairs = (
            Pair(window.canary.segments.get(segment, none), window.stable.segments.get(segment, none))
            for window in evidence.windows
        )
        enough, few = self.config.min_customers, Pair(none, none)
        # a window with few customers stays in the list, without evidence: later windows keep their weights
        return [one if min(len(one.canary), len(one.stable)) >= enough else few for one in pairs]


def _described(segment: str, windows: list[Pair], log_e: float, segments: int) -> Found:
    canary = float(np.concatenate([one.canary for one in windows]).mean())
    stable = float(np.concatenate([one.stable for one in windows]).mean())
    summary = (
        f"{segment}: mean score {canary:.3f} on the canary, {stable:.3f} on stable ({segments} segments)"
    )
    return Found(log_e, summary, None, {"canary": canary, "stable": stable, "segments": segments})

"""A shift of the mean score."""

import numpy as np
from pydantic import Field

from core.config import Config
from rollout.evidence import Evidence, Window
from rollout.rules.answer import Found, answer, unreadable
from rollout.rules.rule import Verdict
from rollout.rules.shifts import Pair, outside, paired_excess, paired_shortfall, window_excess
from rollout.statistics.bounded_means import mean_interval
from rollout.statistics.e_values import in_order, mean_evidence


class ScoreShift(Config):
    tolerance: float = Field(0.05, gt=0, lt=1)
    """By how much the mean score may differ from stable's (on the same customers, where pairs are known)."""
    min_customers: int = Field(50, gt=0)
    """Customers scored by the canary before the rule can let it advance."""


class ScoreShiftRule:
    """Harm: the mean score differs from stable's by more than the tolerance, either way (half of alpha each).

    Where a window has pairs, scores of the same customers are compared, else those of the two groups of
    customers, who are assigned to variants at random. Windows are averaged, because the same customers occur
    in several. A window at weight 100 has no stable customers to compare with; the evidence of the windows
    before it remains.
    """

    name = "score_shift"

    def __init__(self, config: ScoreShift) -> None:
        self.config = config

    def judge(self, evidence: Evidence, alpha: float) -> Verdict:
        for number, window in enumerate(evidence.windows, start=1):
            scores = np.concatenate([window.stable.scores, window.canary.scores])
            if outside(scores, 0, 1) or outside(window.pairs, -1, 1):
                return unreadable(self.name, f"window {number}: a score is NaN or outside of [0, 1]")
        sides = [self._window(window) for window in evidence.windows if _compared(window)]
        up, down = (in_order([side[way] for side in sides]) for way in (0, 1))
        return answer(self.name, self._found(evidence, float(mean_evidence([up, down])), alpha), alpha)

    def _window(self, window: Window) -> tuple[float, float]:
        """Log e-values: the canary's scores are too high, and too low."""
        if len(window.pairs):
            allowed = self.config.tolerance
            return paired_excess(window.pairs, allowed), paired_shortfall(window.pairs, allowed)
        canary, stable = window.canary.scores, window.stable.scores
        return (
            window_excess(Pair(canary, stable), self.config.tolerance),
            window_excess(Pair(stable, canary), self.config.tolerance),
        )

    def _found(self, evidence: Evidence, log_e: float, alpha: float) -> Found:
        compared = [window for window in evidence.windows if _compared(window)]
        seen = sum(_compared(window) for window in compared)
        current = evidence.current
        waiting = None
        if not len(current.canary.scores) and not len(current.pairs):
            waiting = "no scores of the canary in this stage yet"
        elif seen < self.config.min_customers:
            waiting = f"{seen} customers compared, {self.config.min_customers} needed"
        elif not _compared(current) and current.weight < 100:
            waiting = "no scores of stable in this stage yet"
        if not compared:
            return Found(log_e, "no scores to compare", waiting)
        return _described(compared[-1], log_e, waiting, alpha)


def _compared(window: Window) -> int:
    """How many of the canary's customers can be compared with stable's."""
    return len(window.pairs) or (len(window.canary.scores) if len(window.stable.scores) else 0)


def _described(window: Window, log_e: float, waiting: str | None, alpha: float) -> Found:
    if not len(window.pairs):
        canary, stable = window.canary.scores, window.stable.scores
        summary = (
            f"mean score {canary.mean():.3f} of {len(canary)} on the canary, {stable.mean():.3f} on stable"
        )
        return Found(
            log_e, summary, waiting, {"canary": float(canary.mean()), "stable": float(stable.mean())}
        )
    low, high = (2 * bound - 1 for bound in mean_interval((window.pairs + 1) / 2, alpha))
    moved = float(window.pairs.mean())
    summary = f"scores moved by {moved:+.3f} [{low:+.3f}, {high:+.3f}] on {len(window.pairs)} same requests"
    return Found(log_e, summary, waiting, {"moved": moved, "low": low, "high": high})

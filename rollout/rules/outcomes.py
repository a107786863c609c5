"""Log-loss and calibration, where labels are known in time."""

import math

import numpy as np
from pydantic import Field

from core.config import Config
from rollout.evidence import Evidence, Floats, Labelled
from rollout.rules.answer import Found, answer, unreadable
from rollout.rules.rule import Verdict
from rollout.rules.shifts import Pair, excess, outside, window_excess
from rollout.statistics.e_values import in_order, mean_evidence

FLOOR = 0.01
"""Scores are limited to at least this and at most one minus it, so that a loss is at most 4.6 nats."""
MOST = -math.log(FLOOR)
LEAST = -math.log1p(-FLOOR)

BINS = 8192
"""More than for scores: a hundredth of a nat is a five-hundredth of the range of losses."""


class Outcomes(Config):
    log_loss_tolerance: float = Field(0.01, ge=0)
    """How much higher than stable's the log-loss may be."""
    calibration_tolerance: float = Field(0.05, gt=0, lt=1)
    """By how much the distance of mean score and churn rate may be larger than stable's."""


class OutcomesRule:
    """Harm: the log-loss is above stable's plus its tolerance, or the distance between mean score and churn
    rate is, either way. Half of alpha each.

    No stage waits for labels: they may come months later, and the watch after promotion may end before.
    """

    name = "outcomes"

    def __init__(self, config: Outcomes) -> None:
        self.config = config

    def judge(self, evidence: Evidence, alpha: float) -> Verdict:
        for number, window in enumerate(evidence.windows, start=1):
            for arm in (window.canary, window.stable):
                if damage := _damage(arm.labelled):
                    return unreadable(self.name, f"window {number}: {damage}")
        both = [
            (window.canary.labelled, window.stable.labelled)
            for window in evidence.windows
            if len(window.canary.labelled.scores) and len(window.stable.labelled.scores)
        ]
        if not both:
            return Verdict(self.name, "advance", "no labels yet")
        worse = excess(
            [Pair(_losses(canary), _losses(stable)) for canary, stable in both],
            self.config.log_loss_tolerance / (MOST - LEAST),
            BINS,
        )
        log_e = float(mean_evidence([worse, self._miscalibrated(both)]))
        return answer(self.name, _described(both, log_e), alpha)

    def _miscalibrated(self, both: list[tuple[Labelled, Labelled]]) -> float:
        """Log e-value against |gap(canary)| <= |gap(stable)| + tolerance, where gap = mean score - churn
        rate.

        Above: the canary's gap exceeds stable's gap and its negative, of which the larger is |gap(stable)|.
        Under the null hypothesis it does not exceed one of the two, so the smaller e-value is an e-value.
        Below: the same with signs exchanged.
        """
        allowed = self.config.calibration_tolerance / 2

        def beyond(window: tuple[Labelled, Labelled], sign: int, stable_sign: int) -> float:
            canary, stable = window
            return window_excess(Pair(_gaps(canary, sign), _gaps(stable, stable_sign)), allowed)

        sides = [
            in_order([min(beyond(window, side, 1), beyond(window, side, -1)) for window in both])
            for side in (1, -1)
        ]
        return float(mean_evidence(sides))


def _damage(labelled: Labelled) -> str | None:
    if len(labelled.scores) != len(labelled.churned):
        return f"{len(labelled.scores)} scores and {len(labelled.churned)} labels"
    if outside(labelled.scores, 0, 1) or not np.isin(labelled.churned, (0, 1)).all():
        return "a score outside of [0, 1], or a label other than 0 and 1"
    return None


def _losses(labelled: Labelled) -> Floats:
    """The log-loss of each customer, scaled to [0, 1]."""
    scores = np.clip(labelled.scores, FLOOR, 1 - FLOOR)
    losses = -np.log(np.where(labelled.churned == 1, scores, 1 - scores))
    return np.asarray(np.clip((losses - LEAST) / (MOST - LEAST), 0, 1))


def _gaps(labelled: Labelled, sign: int) -> Floats:
    """Score minus outcome of each customer, scaled from [-1, 1] to [0, 1]."""
    return np.asarray((1 + sign * (labelled.scores - labelled.churned)) / 2)


def _described(both: list[tuple[Labelled, Labelled]], log_e: float) -> Found:
    canary = Labelled(*(np.concatenate([getattr(c, of) for c, _ in both]) for of in ("scores", "churned")))
    stable = Labelled(*(np.concatenate([getattr(s, of) for _, s in both]) for of in ("scores", "churned")))
    losses = [float(LEAST + (MOST - LEAST) * _losses(one).mean()) for one in (canary, stable)]
    gaps = [float((one.scores - one.churned).mean()) for one in (canary, stable)]
    numbers = {"log_loss": losses[0], "stable_log_loss": losses[1], "gap": gaps[0], "stable_gap": gaps[1]}
    summary = (
        f"log-loss {losses[0]:.4f} on {len(canary.scores)} known outcomes, stable's {losses[1]:.4f}; "
        f"score minus churn rate {gaps[0]:+.3f}, stable's {gaps[1]:+.3f}"
    )
    return Found(log_e, summary, None, {**numbers, "canary_count": len(canary.scores)})

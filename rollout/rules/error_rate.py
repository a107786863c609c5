"""Failed requests, and customers whose requests fail."""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from core.config import Config
from rollout.evidence import Arm, Evidence, Floats, Tries, Window
from rollout.rules.answer import answer, unreadable
from rollout.rules.blocks import before_after, both
from rollout.rules.events import Kind, described, problem
from rollout.rules.rule import Verdict
from rollout.statistics.event_rates import RATIOS, Counts, over_ratios, window_evidence

ERRORS = Kind("errors", lambda arm: arm.requests, lambda arm: arm.errors)
FAILING = Kind("failing customers", lambda arm: arm.errors, lambda arm: arm.failing or 0)
"""There are never more failing customers than failed requests."""


class ErrorRate(Config):
    tolerance: float = Field(0.0, ge=0, lt=1)
    """By how much the rate may be higher than stable's."""


class ErrorRateRule:
    """Harm: the canary fails more often than stable does, plus the tolerance.

    While both variants serve, failing customers are counted, each once a rollout. A customer is assigned to a
    variant with a probability that is the weight, so the canary gets that share of those who would fail on
    either. In a shadow both variants get the requests of the same customers, and on a cluster each request is
    assigned independently: there, requests are counted. At weight 100 and after promotion, failures in blocks
    of time are compared with those of stable before.
    """

    name = "error_rate"

    def __init__(self, config: ErrorRate) -> None:
        self.config = config

    def judge(self, evidence: Evidence, alpha: float) -> Verdict:
        if damage := problem(evidence, ERRORS) or problem(evidence, FAILING):
            return unreadable(self.name, damage)
        split = float(over_ratios(split_evidence(evidence.windows, self.config.tolerance)))
        alone = before_after(evidence, _failed, self.config.tolerance)
        return answer(self.name, described(evidence, ERRORS, both(split, alone)), alpha)


def split_evidence(windows: Sequence[Window], tolerance: float) -> Floats:
    """[ratios]: the log e-value of each ratio of harm, over all windows in which both variants got
    requests."""
    total = np.zeros(len(RATIOS))
    for window in windows:
        if window.canary.requests and window.stable.requests:
            evidence = window_evidence(dealt(window), tolerance)
            # errors of both variants at one request lower the evidence, so only half of the capital is bet
            total = total + (np.logaddexp(evidence, 0) - np.log(2) if window.mirror else evidence)
    return total


def dealt(window: Window) -> Counts:
    """Failures of both variants, and the totals to whose ratio they would be proportional if both failed
    alike."""
    canary, stable = window.canary, window.stable
    if window.mirror or canary.failing is None or stable.failing is None:
        return Counts(canary.requests, canary.errors, stable.requests, stable.errors)
    total, share = canary.requests + stable.requests, window.weight / 100
    return Counts(total * share, canary.failing, total * (1 - share), stable.failing)


def _failed(arm: Arm) -> Tries:
    if len(arm.blocks.requests) or not arm.requests:
        return arm.blocks.failed()
    return Tries(np.array([float(arm.requests)]), np.array([float(arm.errors)]))

"""Requests that got no answer."""

from rollout.config import ErrorRate
from rollout.evidence import Evidence
from rollout.rules.answer import answer, unreadable
from rollout.rules.events import Kind, compare, problem
from rollout.rules.rule import Verdict

ERRORS = Kind("errors", lambda arm: arm.requests, lambda arm: arm.errors)


class ErrorRateRule:
    """Harm: the canary's share of failed requests is above stable's plus the tolerance."""

    name = "error_rate"

    def __init__(self, config: ErrorRate) -> None:
        self.config = config

    def judge(self, evidence: Evidence, alpha: float) -> Verdict:
        if damage := problem(evidence, ERRORS):
            return unreadable(self.name, damage)
        return answer(self.name, compare(evidence, ERRORS, self.config.tolerance), alpha)

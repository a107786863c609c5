"""The share of customers with the decision `High Risk`."""

import numpy as np
from pydantic import Field

from core.config import Config
from rollout.evidence import Arm, Evidence
from rollout.rules.answer import Found, answer, unreadable
from rollout.rules.events import Kind, problem
from rollout.rules.rule import Verdict
from rollout.statistics.bounded_means import Histogram, excess_mean
from rollout.statistics.e_values import in_order, mean_evidence

HIGH_RISK = Kind("high-risk customers", lambda arm: arm.customers, lambda arm: arm.high_risk)


class DecisionRate(Config):
    tolerance: float = Field(0.10, gt=0, lt=1)
    """By how much the share of `High Risk` may differ from stable's, either way."""
    min_customers: int = Field(50, gt=0)
    """Customers scored by the canary before the rule can let it advance."""


class DecisionRateRule:
    """Harm: the share differs from stable's by more than the tolerance, either way (half of alpha each).

    Windows are averaged, because the same customers occur in several. A window at weight 100 has no stable
    customers to compare with; the evidence of the windows before it remains.
    """

    name = "decision_rate"

    def __init__(self, config: DecisionRate) -> None:
        self.config = config

    def judge(self, evidence: Evidence, alpha: float) -> Verdict:
        if damage := problem(evidence, HIGH_RISK):
            return unreadable(self.name, damage)
        compared = [w for w in evidence.windows if w.canary.customers and w.stable.customers]
        allowed = self.config.tolerance
        up = in_order([_excess(window.canary, window.stable, allowed) for window in compared])
        down = in_order([_excess(window.stable, window.canary, allowed) for window in compared])
        log_e = float(mean_evidence([up, down]))
        seen, current = sum(window.canary.customers for window in compared), evidence.current
        waiting = None
        if not current.canary.customers or seen < self.config.min_customers:
            waiting = (
                f"{seen} customers compared, {current.canary.customers} scored by the canary in this stage; "
                f"{self.config.min_customers} needed"
            )
        elif not current.stable.customers and current.weight < 100:
            waiting = "no customers scored by stable in this stage yet"
        if not compared:
            return answer(self.name, Found(log_e, "no decisions to compare", waiting), alpha)
        canary, stable = (arm.high_risk / arm.customers for arm in (compared[-1].canary, compared[-1].stable))
        summary = f"{canary:.1%} of {compared[-1].canary.customers} at high risk, {stable:.1%} on stable"
        return answer(self.name, Found(log_e, summary, waiting, {"canary": canary, "stable": stable}), alpha)


def _excess(more: Arm, less: Arm, tolerance: float) -> float:
    return float(excess_mean(_decisions(more), _decisions(less), tolerance))


def _decisions(arm: Arm) -> Histogram:
    return Histogram(np.array([0.0, 1.0]), np.array([arm.customers - arm.high_risk, arm.high_risk], float))

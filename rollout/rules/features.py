"""Customers who were scored with missing or stale features, or by the fallback."""

from pydantic import Field

from core.config import Config
from rollout.evidence import Evidence
from rollout.rules.answer import Found, answer, unreadable
from rollout.rules.events import Kind, compare, problem
from rollout.rules.rule import Verdict
from rollout.statistics.e_values import mean_evidence

KINDS = (
    Kind("customers with missing features", lambda arm: arm.customers, lambda arm: arm.missing),
    Kind("customers with stale features", lambda arm: arm.customers, lambda arm: arm.stale),
    Kind("degraded answers", lambda arm: arm.customers, lambda arm: arm.degraded),
)


class FeatureHealth(Config):
    tolerance: float = Field(0.01, ge=0, lt=1)
    """By how much the shares of missing, stale and degraded customers may be larger than stable's."""
    min_customers: int = Field(50, gt=0)
    """Customers whom the canary must have scored over all stages before the rule lets a stage end."""


class FeatureHealthRule:
    """Harm: the share of one kind is above stable's plus the tolerance. Each kind may spend a third of
    alpha."""

    name = "features"

    def __init__(self, config: FeatureHealth) -> None:
        self.config = config

    def judge(self, evidence: Evidence, alpha: float) -> Verdict:
        for kind in KINDS:
            if damage := problem(evidence, kind):
                return unreadable(self.name, damage)
        found = [compare(evidence, kind, self.config.tolerance, self.config.min_customers) for kind in KINDS]
        worst = max(found, key=lambda one: one.log_e)
        log_e = float(mean_evidence([one.log_e for one in found]))
        return answer(self.name, Found(log_e, worst.summary, worst.waiting, worst.numbers), alpha)

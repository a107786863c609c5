"""The rules that judge a canary by its live traffic, as `configs/rollout.yaml` configures them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from core.config import Config
from rollout.evidence import Evidence
from rollout.rules.answer import unreadable
from rollout.rules.decision_rate import DecisionRate, DecisionRateRule
from rollout.rules.error_rate import ErrorRate, ErrorRateRule
from rollout.rules.features import FeatureHealth, FeatureHealthRule
from rollout.rules.latency import Latency, LatencyRule
from rollout.rules.outcomes import Outcomes, OutcomesRule
from rollout.rules.rule import Answer, Rule, Verdict
from rollout.rules.score_shift import ScoreShift, ScoreShiftRule
from rollout.rules.segments import Segments, SegmentsRule

if TYPE_CHECKING:
    from rollout.config import RolloutConfig

__all__ = ["Answer", "Rule", "Rules", "Verdict", "judge_all", "rules_of", "shares"]


class Rules(Config):
    """null switches a rule off."""

    error_rate: ErrorRate | None = ErrorRate()
    latency: Latency | None = Latency()
    features: FeatureHealth | None = FeatureHealth()
    score_shift: ScoreShift | None = ScoreShift()
    decision_rate: DecisionRate | None = DecisionRate()
    outcomes: Outcomes | None = Outcomes()
    segments: Segments | None = Segments()


RULES: dict[str, Callable[[Any], Rule]] = {
    "error_rate": ErrorRateRule,
    "latency": LatencyRule,
    "features": FeatureHealthRule,
    "score_shift": ScoreShiftRule,
    "decision_rate": DecisionRateRule,
    "outcomes": OutcomesRule,
    "segments": SegmentsRule,
}

IMPORTANCE = {"error_rate": 4.0, "latency": 2.0}
"""A rule's share of alpha, relative to 1 for all others. Errors and slow requests do harm at once and are
rare, so that a request is little evidence of them. A shift of scores is found within a few hundred customers
anyway."""

UNJUDGEABLE = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError, AttributeError)
"""Exceptions of arithmetic on damaged evidence."""


def rules_of(config: "RolloutConfig") -> tuple[Rule, ...]:
    """The rules that are configured and have data, in the order of RULES. Prometheus' counts of a cluster
    contain no customers, and so neither outcomes nor segments."""
    sources = {"outcomes": config.labels, "segments": config.segments}
    idle = {name for name, source in sources.items() if not source or config.target != "envoy"}
    configured = {name: getattr(config.rules, name) for name in RULES if name not in idle}
    return tuple(RULES[name](settings) for name, settings in configured.items() if settings is not None)


def shares(rules: Sequence[Rule], alpha: float) -> dict[str, float]:
    """The share of `alpha` that each rule, by name, may spend. Their sum is `alpha`."""
    weights = {rule.name: IMPORTANCE.get(rule.name, 1.0) for rule in rules}
    return {name: alpha * weight / sum(weights.values()) for name, weight in weights.items()}


def judge_all(rules: Sequence[Rule], evidence: Evidence, alpha: float) -> tuple[Verdict, ...]:
    """One verdict for each rule. A rule that cannot judge answers `not_yet` with the reason, never
    `advance`."""
    share = shares(rules, alpha)
    return tuple(_judged(rule, evidence, share[rule.name]) for rule in rules)


def _judged(rule: Rule, evidence: Evidence, alpha: float) -> Verdict:
    try:
        return rule.judge(evidence, alpha)
    except UNJUDGEABLE as error:
        message = " ".join(str(error).split())[:200]
        return unreadable(rule.name, f"{type(error).__name__}: {message}")

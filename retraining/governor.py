"""Decides whether a model is trained now: a pure function of policy, state, evidence and time.

Nothing calls it with an event. Whatever wakes the governor (cron, a webhook, a DAG, a person) makes it read
the database again, so repeated, lost and reordered wake-ups change no decision.
"""

from datetime import datetime

from retraining.config import RetrainConfig
from retraining.decision import Action, Decision, Evidence, Obstacle, State
from retraining.obstacles import first_obstacle, runs_in_budget, vetoing
from retraining.tempo import period_days
from retraining.triggers import (
    days_between,
    fired,
    last_training,
    most_drifted,
    schedule_days,
    usable_windows,
)


def decide(policy: RetrainConfig, state: State, evidence: Evidence, now: datetime) -> Decision:
    """The decision at `now` (aware). Equal arguments give an equal decision."""
    numbers = _numbers(policy, state, evidence, now)
    triggers = fired(policy, state, evidence, now)
    if not triggers:
        return Decision(Action.NO, None, None, _nothing(policy, evidence, numbers), numbers)
    first = triggers[0]
    against = first_obstacle(policy, state, evidence, first.trigger, now)
    if against is None:
        return Decision(Action.YES, first.trigger, None, f"{first.why}.", numbers)
    action = Action.VETOED if against.obstacle is Obstacle.VETO else Action.NO
    asks = f"{first.trigger.value.replace('_', ' ')} asks for a training"
    return Decision(action, first.trigger, against.obstacle, f"{asks}, but {against.why}.", numbers)


def _numbers(policy: RetrainConfig, state: State, evidence: Evidence, now: datetime) -> dict[str, float]:
    """All numbers that a decision compares."""
    numbers: dict[str, float] = {
        "checks": len(evidence.windows),
        "vetoing_findings": sum(1 for _ in vetoing(policy, evidence)),
        "labels_matured": evidence.labels.matured,
        "labels_new": evidence.labels.new,
        "runs_in_budget": runs_in_budget(policy, state, now),
    }
    if policy.triggers.drift is not None:
        of = policy.triggers.drift.of
        numbers["drifted_checks"] = most_drifted(usable_windows(state, evidence), of)[1]
    if policy.triggers.ageing is not None:
        days = period_days(policy.triggers.ageing, evidence.ageing, evidence.labels.customers)
        numbers |= {} if days is None else {"period_days": days}
    if (last := last_training(state)) is not None:
        numbers["days_since_training"] = days_between(last, now)
    if evidence.windows:
        numbers["days_since_check"] = days_between(evidence.windows[-1].at, now)
    if state.attempts and (ended := state.attempts[-1].ended) is not None:
        numbers["hours_since_run"] = days_between(ended, now) * 24
    return {name: float(value) for name, value in numbers.items()}


def _nothing(policy: RetrainConfig, evidence: Evidence, numbers: dict[str, float]) -> str:
    """The sentence for a decision without a trigger."""
    facts = []
    triggers = policy.triggers
    if triggers.performance is not None or triggers.early_labels is not None:
        facts.append("no harm was found")
    if triggers.drift is not None:
        facts.append(
            f"drift lasted {numbers['drifted_checks']:.0f} of the {triggers.drift.windows} checks needed"
        )
    if triggers.new_labels is not None:
        facts.append(f"{numbers['labels_new']:,.0f} of {triggers.new_labels:,} labels are new")
    if triggers.ageing is not None and evidence.ageing and "days_since_training" in numbers:
        due = f"pays after {numbers['period_days']:.1f}" if "period_days" in numbers else "does not pay"
        facts.append(f"the last training was {numbers['days_since_training']:.1f} days ago and one {due}")
    if (days := schedule_days(policy, evidence)) is not None:
        passed = numbers["days_since_training"]
        facts.append(f"the last training was {passed:.1f} of {days:g} days ago")
    return f"No trigger holds: {', '.join(facts) or 'all are switched off'}."

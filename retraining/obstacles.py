"""What stands against a training that a trigger asks for, in the order in which it is reported."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from monitoring.findings import Cause, Finding
from retraining.config import RetrainConfig
from retraining.decision import Evidence, Obstacle, Outcome, State, Trigger
from retraining.triggers import days_between


@dataclass(frozen=True)
class Against:
    """An obstacle that holds."""

    obstacle: Obstacle
    why: str
    """A sentence without a full stop, with what to do."""


def first_obstacle(
    policy: RetrainConfig, state: State, evidence: Evidence, trigger: Trigger, now: datetime
) -> Against | None:
    """The first obstacle that holds; None: a model can be trained.

    A person is not bound by cooldown, budget and numbers of labels, and may override a veto. Nothing
    overrides a run or a rollout that is under way.
    """
    request = evidence.request if trigger is Trigger.PERSON else None
    overridden = request is not None and request.override_veto
    if not overridden and (veto := _veto(policy, evidence, now)):
        return Against(Obstacle.VETO, veto)
    if busy := _busy(state):
        return busy
    if request is not None:
        return None
    return _too_soon(policy, state, now) or _too_few(policy, evidence)


def vetoing(policy: RetrainConfig, evidence: Evidence) -> Iterator[tuple[Finding, datetime]]:
    """The findings that veto a training, each with the time of its check; those of the newest check first."""
    reach = {
        Cause.CORRUPTION: policy.vetoes.corruption,
        Cause.SKEW: policy.vetoes.skew,
        Cause.STALENESS: policy.vetoes.staleness,
    }
    for age, window in enumerate(reversed(evidence.windows)):
        for finding in window.findings:
            if finding.vetoes and age < reach[finding.cause]:
                yield finding, window.at


def _veto(policy: RetrainConfig, evidence: Evidence, now: datetime) -> str:
    longest = policy.vetoes.unmonitored_days
    if longest is not None and not evidence.windows:
        return "no check of the data is recorded; run `churn monitor`"
    if longest is not None and (age := days_between(evidence.windows[-1].at, now)) > longest:
        return (
            f"the newest check of the data is {age:.1f} days old, {longest:g} are allowed;"
            " run `churn monitor`"
        )
    for finding, at in vetoing(policy, evidence):
        return f"{finding.cause.value} at the check of {at:%Y-%m-%d}: {finding.message}".rstrip(".")
    return ""


def _busy(state: State) -> Against | None:
    running = [attempt for attempt in state.attempts if attempt.outcome is Outcome.RUNNING]
    if running:
        return Against(
            Obstacle.RUN, f"run {running[-1].run} has not ended; `churn retrain resume` continues it"
        )
    if state.rollout:
        return Against(Obstacle.ROLLOUT, f"rollout {state.rollout} has not ended; wait for its end")
    return None


def _too_soon(policy: RetrainConfig, state: State, now: datetime) -> Against | None:
    if state.attempts:
        last = state.attempts[-1]
        over = (last.ended or last.started) + timedelta(hours=policy.cooldown_hours)
        if now < over:
            return Against(
                Obstacle.COOLDOWN,
                f"run {last.run} ended as {last.outcome.value.replace('_', ' ')} less than"
                f" {policy.cooldown_hours:g} hours ago; the next one may start at {over:%Y-%m-%d %H:%M}",
            )
    spent = runs_in_budget(policy, state, now)
    if spent >= policy.budget.runs:
        return Against(
            Obstacle.BUDGET,
            f"{spent} runs started in the last {policy.budget.days:g} days, {policy.budget.runs} are allowed",
        )
    return None


def runs_in_budget(policy: RetrainConfig, state: State, now: datetime) -> int:
    """Runs that started in the span of the budget, which ends now."""
    since = now - timedelta(days=policy.budget.days)
    return sum(attempt.started > since for attempt in state.attempts)


def _too_few(policy: RetrainConfig, evidence: Evidence) -> Against | None:
    labels = evidence.labels
    if labels.matured < policy.minimum_labels:
        return Against(
            Obstacle.FEW_LABELS,
            f"{labels.matured:,} labels have matured, a training needs {policy.minimum_labels:,}",
        )
    if labels.new < policy.minimum_new_labels:
        return Against(
            Obstacle.SAME_LABELS,
            f"{labels.new:,} labels are new since the last training,"
            f" {policy.minimum_new_labels:,} are needed",
        )
    return None

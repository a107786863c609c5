"""Which triggers ask for a training, each with a sentence for the ledger."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from monitoring.findings import Cause, Finding
from retraining.config import Ageing, RetrainConfig, SomeOf
from retraining.decision import Evidence, State, Trigger, Window
from retraining.tempo import period_days

EARLY = "early_"
"""The names of checks on early labels begin with this."""


@dataclass(frozen=True)
class Fired:
    """A trigger that holds."""

    trigger: Trigger
    why: str
    """A sentence without a full stop."""


def fired(policy: RetrainConfig, state: State, evidence: Evidence, now: datetime) -> list[Fired]:
    """All triggers that hold, the most important one first."""
    triggers, windows = policy.triggers, usable_windows(state, evidence)
    found = [
        _person(evidence),
        _harm(Trigger.PERFORMANCE, triggers.performance, windows),
        _harm(Trigger.EARLY_LABELS, triggers.early_labels, windows),
        _drift(triggers.drift, windows),
        _new_labels(triggers.new_labels, evidence),
        _ageing(triggers.ageing, state, evidence, now),
        _schedule(schedule_days(policy, evidence), state, now),
    ]
    return [one for one in found if one is not None]


def usable_windows(state: State, evidence: Evidence) -> list[Window]:
    """The checks of the model that serves, without those that led to the last run: that one has answered
    them, whether its candidate was refused or not."""
    answered = state.attempts[-1].evidence_at if state.attempts else None
    return [
        window
        for window in evidence.windows
        if window.version in ("", state.version) and (answered is None or window.at > answered)
    ]


def schedule_days(policy: RetrainConfig, evidence: Evidence) -> float | None:
    """The fixed schedule; None where measured ageing replaces it."""
    triggers = policy.triggers
    return None if triggers.ageing is not None and evidence.ageing else triggers.schedule_days


def last_training(state: State) -> datetime | None:
    """When a model was trained last: the one that serves, or a candidate that was refused."""
    moments = [attempt.started for attempt in state.attempts[-1:]]
    return max([*moments, *([state.trained] if state.trained else [])], default=None)


def days_between(earlier: datetime, later: datetime) -> float:
    return (later - earlier) / timedelta(days=1)


def _person(evidence: Evidence) -> Fired | None:
    if evidence.request is None:
        return None
    return Fired(Trigger.PERSON, f"{evidence.request.who} asked for it: {evidence.request.reason}")


def _harm(trigger: Trigger, some: SomeOf | None, windows: Sequence[Window]) -> Fired | None:
    """Harm in any of the newest checks counts: a check that was harmless after it does not take it back."""
    if some is None:
        return None
    harmful = [
        finding
        for window in windows[-some.of :]
        if (finding := next(_harms(window, trigger is Trigger.EARLY_LABELS), None))
    ]
    if len(harmful) < some.windows:
        return None
    what = "early" if trigger is Trigger.EARLY_LABELS else "matured"
    counted = f"{len(harmful)} of the last {some.of} checks found harm on {what} labels"
    return Fired(trigger, f"{counted}: {harmful[-1].message}".rstrip("."))


def _harms(window: Window, early: bool) -> Iterator[Finding]:
    for finding in own(window, Cause.HARM):
        if finding.check.startswith(EARLY) is early:
            yield finding


def _drift(some: SomeOf | None, windows: Sequence[Window]) -> Fired | None:
    if some is None or not windows:
        return None
    key, drifted = most_drifted(windows, some.of)
    if drifted < some.windows:
        return None
    return Fired(Trigger.DRIFT, f"{key} drifted in {drifted} of the last {some.of} checks")


def most_drifted(windows: Sequence[Window], of: int) -> tuple[str, int]:
    """The finding of drift of the newest check that is in most of the last `of` checks, and in how many."""
    if not windows:
        return "", 0
    counts = Counter(
        key for window in windows[-of:] for key in {finding.key for finding in own(window, Cause.DRIFT)}
    )
    now = sorted({finding.key for finding in own(windows[-1], Cause.DRIFT)})
    return max(((key, counts[key]) for key in now), key=lambda pair: pair[1], default=("", 0))


def own(window: Window, cause: Cause) -> Iterator[Finding]:
    """The findings of a cause that are no symptom of another finding."""
    return (finding for finding in window.findings if finding.cause is cause and not finding.explained_by)


def _new_labels(enough: int | None, evidence: Evidence) -> Fired | None:
    if enough is None or evidence.labels.new < enough:
        return None
    return Fired(Trigger.NEW_LABELS, f"{evidence.labels.new:,} labels are new, {enough:,} are enough")


def _ageing(ageing: Ageing | None, state: State, evidence: Evidence, now: datetime) -> Fired | None:
    if ageing is None:
        return None
    days = period_days(ageing, evidence.ageing, evidence.labels.customers)
    return _due(Trigger.AGEING, days, state, now, " by measured ageing")


def _schedule(days: float | None, state: State, now: datetime) -> Fired | None:
    return _due(Trigger.SCHEDULE, days, state, now)


def _due(trigger: Trigger, days: float | None, state: State, now: datetime, by: str = "") -> Fired | None:
    if days is None:
        return None
    last = last_training(state)
    if last is None:
        return Fired(trigger, f"no training is known, and one is due every {days:g} days{by}")
    passed = days_between(last, now)
    if passed < days:
        return None
    return Fired(trigger, f"the last training was {passed:.1f} days ago, one is due after {days:g}{by}")

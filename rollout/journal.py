"""Record: each decision is written as an event together with the new state, then sent as a notice."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from rollout.config import RolloutConfig
from rollout.notify import Notice, Notify
from rollout.situation import Decision, Observation
from rollout.state import Action, Event, Rollout
from rollout.store import Store


class Journal:
    """Writes for the controller `holder`. Its methods raise Overtaken when that has lost the lease."""

    def __init__(self, config: RolloutConfig, store: Store, notify: Notify, holder: str) -> None:
        self._config, self._store, self._notify, self._holder = config, store, notify, holder

    def record(self, rollout: Rollout, decision: Decision, seen: Observation) -> Rollout:
        """Write `decision` and the state that follows from it."""
        intended = rollout.pending == rollout.sequence + 1
        event = self.event(rollout, seen.at, decision.action, decision.reason)
        event = replace(event, done=not intended, numbers=decision.numbers, verdicts=seen.verdicts)
        if decision.answers is not None:
            event = replace(event, who=decision.answers.who)
        return self.save(rollout, event, answers=decision.answers)

    def failed(self, rollout: Rollout, trouble: str, at: datetime) -> Rollout:
        """An action could not be finished: the next tick repeats it. Only the first failure is an event."""
        fresh = replace(rollout, trouble=trouble)
        if rollout.unreached_since is not None:
            return fresh
        fresh = replace(fresh, unreached_since=at)
        return self.save(fresh, self.event(fresh, at, "unreachable", trouble))

    def confirm(self, rollout: Rollout, at: datetime) -> Rollout:
        """The pending intention has been carried out."""
        return self._store.confirm(rollout, at, holder=self._holder)

    def save(self, rollout: Rollout, event: Event, **more: Any) -> Rollout:
        """`more`: `answers` and `confirms` of Store.save."""
        saved = self._store.save(rollout, event, holder=self._holder, **more)
        self._notify(Notice(saved, replace(event, sequence=saved.sequence)))
        return saved

    def event(self, rollout: Rollout, at: datetime, action: Action, reason: str) -> Event:
        weight, mirror = rollout.wanted(self._config)
        return Event(
            at, action, reason, weight=weight, mirror=mirror, phase=rollout.phase, stage=rollout.stage,
            who=self._holder,
        )  # fmt: skip

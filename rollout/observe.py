"""Observe: what target and evidence show in one tick, and the verdicts of the rules on it."""

from collections.abc import Sequence
from datetime import datetime

from core.errors import ChurnError
from rollout.aftermath import after_promotion
from rollout.config import RolloutConfig
from rollout.evidence import Evidence
from rollout.observers.recorded import Recorded
from rollout.records import observation_record
from rollout.rules import judge_all
from rollout.rules.rule import Rule
from rollout.session import Connections
from rollout.situation import Decision, Observation
from rollout.state import Rollout
from rollout.targets.target import TargetState


class View:
    """What one controller sees of its rollouts."""

    def __init__(self, config: RolloutConfig, rules: Sequence[Rule], connections: Connections) -> None:
        self._config, self._rules, self._connections = config, tuple(rules), connections
        self._recorded: dict[str, Recorded] = {}

    def observe(self, rollout: Rollout, now: datetime) -> Observation:
        """Whatever cannot be reached is None, with the reason in `trouble`. It is never older than this
        tick."""
        target: TargetState | None = None
        evidence: Evidence | None = None
        trouble = []
        try:
            target = self._connections.target.observe()
        except ChurnError as error:
            trouble.append(f"target {self._connections.target.name}: {error}")
        try:
            if rollout.windows:
                evidence = self._counts(rollout).observe(rollout.windows, now)
            else:
                evidence = self._before_the_first_window(rollout, target)
        except ChurnError as error:
            trouble.append(f"evidence: {error}")
        if evidence is not None and rollout.promoted:
            evidence = after_promotion(evidence)
        judged = rollout.phase in ("stage", "promoting", "watching")
        verdicts = judge_all(self._rules, evidence, self._config.alpha) if judged and evidence else ()
        can_mirror = self._connections.target.can_mirror
        return Observation(now, target, evidence, verdicts, "; ".join(trouble), can_mirror)

    def _before_the_first_window(self, rollout: Rollout, target: TargetState | None) -> Evidence:
        """No evidence yet. A canary that is ready gets its first window next, which begins with the counters
        of that time: raises ChurnError while they cannot be read."""
        if target is not None and target.ready and target.canary == rollout.candidate.sha256:
            self._connections.observer.mark()
        return Evidence()

    def unready_since(self, rollout: Rollout, seen: Observation) -> datetime | None:
        """Since when a canary that had been ready is not."""
        if rollout.phase != "stage" or seen.target is None or rollout.pending:
            return rollout.unready_since
        weight, _ = rollout.wanted(self._config)
        well = seen.target.ready and seen.target.weight == weight
        return None if well else rollout.unready_since or seen.at

    def save(self, rollout: Rollout, seen: Observation, decision: Decision, holder: str) -> None:
        """Write the observation for `churn rollout status`, and those counts that have changed."""
        recorded = self._recorded.get(rollout.id)
        record = observation_record(seen, decision, rollout.trouble)
        counts = {} if recorded is None else recorded.unsaved()
        self._connections.store.save_observation(rollout, record, counts, holder=holder)
        if recorded is not None:
            recorded.saved()

    def _counts(self, rollout: Rollout) -> Recorded:
        """The observer, continued from the counts that earlier controllers have saved."""
        if rollout.id not in self._recorded:
            before = self._connections.store.observations(rollout.id)
            self._recorded[rollout.id] = Recorded(self._connections.observer, self._config, before)
        return self._recorded[rollout.id]

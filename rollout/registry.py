"""What a rollout tells the model registry: who serves now, and who serves again."""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from rollout.errors import RolloutError
from rollout.targets.target import Candidate
from training.config import TrainingConfig
from training.registry import CHAMPION, PREVIOUS, Registry

LONGEST_REASON = 500
"""Characters: a decision of the registry is one tag, which MLflow limits."""
TOLD = ("seconds", "canary_requests", "stable_requests")
"""Numbers that the registry keeps; all of them are in the rollout's history."""


class RegistryHooks(Protocol):
    """Both may be called again, and return what was done in words. They raise ChurnError when it was not."""

    def promoted(
        self, candidate: Candidate, who: str, when: datetime, why: str, numbers: Mapping[str, float]
    ) -> str: ...

    def rolled_back(
        self, candidate: Candidate, who: str, when: datetime, why: str, numbers: Mapping[str, float]
    ) -> str: ...


class ModelRegistry:
    """The aliases `champion` and `previous` follow the traffic."""

    def __init__(self, training: TrainingConfig) -> None:
        self._registry, self._name = Registry(training), training.model_name

    def promoted(
        self, candidate: Candidate, who: str, when: datetime, why: str, numbers: Mapping[str, float]
    ) -> str:
        number = self._number(candidate)
        if number is None:
            raise RolloutError(
                f"{self._name}: no version has archive {candidate.sha256[:12]}; `churn package` registers it"
            )
        told = {name: numbers[name] for name in TOLD if name in numbers}
        done = self._registry.promote(number, who, when, why[:LONGEST_REASON], told)
        return f"version {number} is the champion" if done else f"version {number} was the champion already"

    def rolled_back(
        self, candidate: Candidate, who: str, when: datetime, why: str, numbers: Mapping[str, float]
    ) -> str:
        """Nothing where the candidate was never champion: its place is as it was."""
        aliases, number = self._registry.aliases(), self._number(candidate)
        if (number is None or aliases.get(CHAMPION) != number) and not self._cut_short():
            return "the champion was not touched"
        if aliases.get(PREVIOUS) is None and not self._cut_short():
            return f"version {number} stays the champion: the registry knows of no previous one"
        self._registry.rollback(who, when, why[:LONGEST_REASON])
        return f"version {self._registry.aliases()[CHAMPION]} is the champion again"

    def _number(self, candidate: Candidate) -> str | None:
        """The newest registered version with this very archive."""
        found = (v for v in self._registry.versions() if v.tags.get("archive_sha256") == candidate.sha256)
        return next((version.number for version in found), None)

    def _cut_short(self) -> bool:
        """Whether a crash came into the last rollback."""
        newest = next(reversed(self._registry.history()), None)
        return newest is not None and newest.action == "rollback" and not newest.applied

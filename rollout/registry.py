"""The model registry as a projection of what serves: its aliases follow, and are mended when they differ."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from typing import Protocol

from rollout.errors import LeaseHeld
from rollout.lease import new_holder
from rollout.store import Store
from rollout.targets.target import Candidate
from training.config import TrainingConfig
from training.registry.model_registry import CHAMPION, PREVIOUS, Registry

LOCK_WITHIN_S = 10.0
LONGEST_REASON = 500
"""Characters: a decision of the registry is one tag, which MLflow limits."""
SHOWN = ("seconds", "canary_requests", "stable_requests")
"""Numbers that the registry keeps; all of them are in the rollout's history."""


class RegistryProjection(Protocol):
    def follow(
        self,
        stable: Candidate,
        previous: Candidate | None,
        who: str,
        when: datetime,
        why: str,
        numbers: Mapping[str, float],
    ) -> str:
        """Name `stable` as what serves, and `previous` as what would come back. Nothing changes where that is
        so already, so that it may be called at every look. Returns how the registry stands, in words; raises
        ChurnError when it cannot be reached."""


class ModelRegistry:
    """The aliases `champion` and `previous` follow the traffic. `locked`: held while they are written."""

    def __init__(
        self, training: TrainingConfig, locked: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._registry, self._name, self._locked = Registry(training), training.model_name, locked

    def follow(
        self,
        stable: Candidate,
        previous: Candidate | None,
        who: str,
        when: datetime,
        why: str,
        numbers: Mapping[str, float],
    ) -> str:
        number = self._number(stable)
        if number is None:
            return (
                f"registry {self._name}: no version has archive {stable.sha256[:12]}, which serves;"
                " `churn package` registers it"
            )
        before = None if previous is None else self._number(previous)
        if self._stands(number, before):
            return f"version {number} is the champion"
        shown = {name: numbers[name] for name in SHOWN if name in numbers}
        with self._locked():
            self._registry.follow(number, before, who, when, why[:LONGEST_REASON], shown)
        return f"version {number} is the champion now"

    def _stands(self, number: str, before: str | None) -> bool:
        aliases = self._registry.aliases()
        unfinished = next(reversed(self._registry.history()), None)
        cut_short = unfinished is not None and not unfinished.applied
        return (aliases.get(CHAMPION), aliases.get(PREVIOUS)) == (number, before) and not cut_short

    def _number(self, candidate: Candidate) -> str | None:
        """The newest registered version with this very archive."""
        found = (v for v in self._registry.versions() if v.tags.get("archive_sha256") == candidate.sha256)
        return next((version.number for version in found), None)


class OthersRegistry:
    """One that is not this process's to change: what would be said is said, and nothing is written."""

    def __init__(self, why: str) -> None:
        self._why = why

    def follow(
        self,
        stable: Candidate,
        previous: Candidate | None,
        who: str,
        when: datetime,
        why: str,
        numbers: Mapping[str, float],
    ) -> str:
        return f"the registry is left as it is: {self._why}"


@contextmanager
def locked_by(store: Store, name: str, clock: Callable[[], datetime]) -> Iterator[None]:
    """While the aliases of registered model `name` are written: by a controller or by a person's command, on
    any machine that shares the database, one at a time.

    Raises LeaseHeld when another one has it for long, RolloutError when the database cannot be reached.
    """
    lock, holder, deadline = f"registry {name}", new_holder(), time.monotonic() + LOCK_WITHIN_S
    while True:
        try:
            store.take_lease(lock, holder, clock())
            break
        except LeaseHeld:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    try:
        yield
    finally:
        store.release_lease(lock, holder, clock())

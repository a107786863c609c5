"""The model registry as a projection of the database: its aliases follow what is stable."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from typing import Protocol

from rollout.database.leases import new_holder
from rollout.errors import LeaseHeld
from rollout.state import Change
from rollout.store import Store
from rollout.targets.target import Candidate
from training.config import TrainingConfig
from training.registry.model_registry import CHAMPION, PREVIOUS, Registry

LOCK_WITHIN_S = 10.0
LONGEST_REASON = 500
"""Characters: a decision of the registry is one tag, which MLflow limits."""
SHOWN = ("seconds", "canary_requests", "stable_requests")
"""Numbers that the registry stores; all of them are in the rollout's history."""


class RegistryProjection(Protocol):
    def follow(self, change: Change, numbers: Mapping[str, float]) -> str:
        """Set the aliases: `champion` to `change.to`, `previous` to `change.previous`. Where they are so
        already, nothing is written, so that it may be called at every tick. Returns the state of the registry
        as text; raises ChurnError when it cannot be reached."""


class ModelRegistry:
    """MLflow's aliases `champion` and `previous`. `locked`: a lock that is held while they are written."""

    def __init__(
        self, training: TrainingConfig, locked: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._registry, self._name, self._locked = Registry(training), training.model_name, locked

    def follow(self, change: Change, numbers: Mapping[str, float]) -> str:
        number = self._number(change.to)
        if number is None:
            return (
                f"registry {self._name}: no version has archive {change.to.sha256[:12]}, which serves;"
                " `churn package` registers it"
            )
        before = None if change.previous is None else self._number(change.previous)
        if self._agrees(number, before):
            return f"version {number} is the champion"
        shown = {name: numbers[name] for name in SHOWN if name in numbers}
        with self._locked():
            self._registry.follow(number, before, change.who, change.at, change.why[:LONGEST_REASON], shown)
        return f"version {number} is the champion now"

    def _agrees(self, number: str, before: str | None) -> bool:
        aliases = self._registry.aliases()
        unfinished = next(reversed(self._registry.history()), None)
        cut_short = unfinished is not None and not unfinished.applied
        return (aliases.get(CHAMPION), aliases.get(PREVIOUS)) == (number, before) and not cut_short

    def _number(self, candidate: Candidate) -> str | None:
        """The newest registered version with the same archive."""
        found = (v for v in self._registry.versions() if v.tags.get("archive_sha256") == candidate.sha256)
        return next((version.number for version in found), None)


class OthersRegistry:
    """A registry that this process must not change: nothing is written."""

    def __init__(self, why: str) -> None:
        self._why = why

    def follow(self, change: Change, numbers: Mapping[str, float]) -> str:
        return f"the registry is left as it is: {self._why}"


@contextmanager
def locked_by(store: Store, name: str, clock: Callable[[], datetime]) -> Iterator[None]:
    """A lock in the database, for writing the aliases of registered model `name`: only one controller or
    command, on all machines that share the database, has it at a time.

    Raises LeaseHeld where it is not free within LOCK_WITHIN_S, RolloutError when the database cannot be
    reached.
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

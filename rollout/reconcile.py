"""Compares target and registry with the database, the one place that decides which archive is stable.

While no rollout runs, the registry's aliases are corrected. A target that serves another archive is reported
with the two remedies, because only a person can decide which of both is right. During a rollout
rollout/decide.py compares the target at every tick.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from core.errors import ChurnError
from rollout.database.projections import Projection
from rollout.registry import RegistryProjection
from rollout.state import Change
from rollout.store import Store
from rollout.targets.target import Candidate, Target, TargetState

SETTLED_AFTER = timedelta(seconds=5)
"""A difference that ends sooner is a change that was just being recorded."""
REGISTRY_EVERY = timedelta(seconds=15)
"""How often the registry's server is read; its aliases are for people and may be so old."""

log = logging.getLogger("churn.rollout")


class Reconciler:
    """For one model. Called at each turn of the loop in which no rollout runs. Raises only RolloutError."""

    def __init__(
        self,
        store: Store,
        target: Target,
        registry: RegistryProjection,
        model: str,
        clock: Callable[[], datetime],
        tidy: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._target, self._registry, self._model = store, target, registry, model
        self._clock, self._tidy = clock, tidy
        self._differs_since: datetime | None = None
        self._registry_at: datetime | None = None
        self._followed: Candidate | None = None
        self._known: dict[str, tuple[bool, str]] = {}

    def __call__(self) -> None:
        now, stable = self._clock(), self._store.stable(self._model)
        if stable is None:
            return
        self._compare_target(stable, now)
        due = self._registry_at is None or now - self._registry_at >= REGISTRY_EVERY
        if due or stable != self._followed:
            self._registry_at, self._followed = now, stable
            self._correct_registry(stable, now)
            with suppress(ChurnError):  # a target that is away is reported by its comparison
                self._tidy()

    def _compare_target(self, stable: Candidate, now: datetime) -> None:
        try:
            difference = differs(stable, self._target.observe())
        except ChurnError as error:
            difference = f"cannot be reached: {error}"
        if not difference:
            self._differs_since = None
            self._report("target", True, f"serves version {stable.version}", now)
            return
        self._differs_since = self._differs_since or now
        if now - self._differs_since >= SETTLED_AFTER:
            self._report("target", False, difference, now)

    def _correct_registry(self, stable: Candidate, now: datetime) -> None:
        before = self._store.before(self._model, stable)
        why = f"version {stable.version} is what customers are answered by"
        try:
            state = self._registry.follow(Change(stable, before, "rollout controller", now, why), {})
        except ChurnError as error:
            self._report("registry", False, str(error), now)
        else:
            self._report("registry", not state.startswith("registry "), state, now)

    def _report(self, name: str, agrees: bool, detail: str, now: datetime) -> None:
        """To the log and for `churn rollout status`, whenever it changes."""
        if self._known.get(name) == (agrees, detail):
            return
        self._known[name] = agrees, detail
        self._store.save_projection(self._model, Projection(name, agrees, detail, now))
        log.log(logging.INFO if agrees else logging.WARNING, "%s: %s", name, detail)


def differs(stable: Candidate, target: TargetState) -> str:
    """How a target without a rollout differs from the record, with the remedies; empty: it does not."""
    if target.stable is not None and target.stable != stable.sha256:
        found = target.stable[:12]
    elif target.stable is None and target.unmarked:
        found = target.unmarked
    elif target.canary is not None or target.weight:
        return (
            f"gives {target.weight} % to a canary ({(target.canary or 'unmarked')[:12]}) of no rollout; take"
            " it away with: churn rollout restore"
        )
    else:
        return ""
    return (
        f"serves {found} where version {stable.version}, archive {stable.sha256[:12]}, is recorded as stable;"
        " bring the recorded one back with `churn rollout restore`, or record what serves with"
        " `churn rollout adopt`"
    )

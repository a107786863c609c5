"""Removes the counts of old rollouts, which are most of the database. The history (events with their numbers
and verdicts) is never removed."""

from collections.abc import Callable
from datetime import datetime, timedelta

from rollout.store import Store

EVERY = timedelta(hours=1)
"""Between two removals."""


class Retention:
    """Called at each turn of a controller's loop; two processes may do it at once."""

    def __init__(self, store: Store, days: float, clock: Callable[[], datetime]) -> None:
        self._store, self._stored_for, self._clock = store, timedelta(days=days), clock
        self._due: datetime | None = None

    def __call__(self) -> None:
        """Remove the counts of rollouts that ended more than `days` ago. Raises RolloutError."""
        now = self._clock()
        if self._due is not None and now < self._due:
            return
        self._store.remove_observations(ended_before=now - self._stored_for)
        self._due = now + EVERY

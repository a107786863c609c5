"""How long the counts of a rollout are stored: they are most of the database, and grow with every look.

What was decided and why (events, their numbers and verdicts) is the history, and stays for good.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from rollout.store import Store

EVERY = timedelta(hours=1)
"""Between two looks for what is due."""


class Retention:
    """Called at any time, by whoever controls rollouts; two that do it at once do no harm."""

    def __init__(self, store: Store, days: float, clock: Callable[[], datetime]) -> None:
        self._store, self._stored_for, self._clock = store, timedelta(days=days), clock
        self._due: datetime | None = None

    def __call__(self) -> None:
        """Remove the counts of rollouts that ended longer ago. Raises RolloutError."""
        now = self._clock()
        if self._due is not None and now < self._due:
            return
        self._store.remove_observations(ended_before=now - self._stored_for)
        self._due = now + EVERY

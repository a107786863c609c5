"""A controller's lease of one model: taken at each tick, and renewed beside actions that take long."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

from rollout.database.leases import new_holder
from rollout.errors import RolloutError
from rollout.store import Store


class Lease:
    """`clock` gives aware UTC times; `holder` is a unique name (default: of this process)."""

    def __init__(
        self, store: Store, lease_s: float, clock: Callable[[], datetime], holder: str | None = None
    ) -> None:
        self._store, self._lease_s, self._clock = store, lease_s, clock
        self.holder = holder or new_holder()
        self._until: datetime | None = None

    def take(self, model: str, now: datetime) -> None:
        """Take or renew it. Raises LeaseHeld while another controller has it."""
        self._store.take_lease(model, self.holder, now)
        self._until = now + timedelta(seconds=self._lease_s)

    def held(self, now: datetime) -> bool:
        """Whether no other controller can have it, even where the database cannot be reached."""
        return self._until is not None and now < self._until

    def release(self, model: str) -> None:
        with suppress(RolloutError):  # it expires anyway
            self._store.release_lease(model, self.holder, self._clock())

    @contextmanager
    def renewed(self, model: str, at_most_s: float) -> Iterator[None]:
        """Renew it inside the block: an action may wait for a cluster longer than the lease lasts.

        After `at_most_s` an action that hangs loses it. A renewal that fails is tried again. A controller
        that has lost the lease gets Overtaken at its next write.
        """
        over, every_s = threading.Event(), self._lease_s / 3

        def work() -> None:
            for _ in range(int(at_most_s / every_s) + 1):
                if over.wait(every_s):
                    return
                with suppress(RolloutError):
                    self.take(model, self._clock())

        thread = threading.Thread(target=work, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

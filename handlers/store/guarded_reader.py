"""Reads from a store through the circuit breaker (`breaker`), and counts reads and failures.

The first read that fails after one that succeeded is made again, once: a lost packet or a process that got no
processor for a moment delays one read, and a store that is away fails the second one too.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from handlers.store import breaker
from handlers.store.stored import FeatureStoreUnavailable, Reader, Stored

CONCLUSIVE_CUSTOMERS = 64
"""A timeout counts as a failure of the store, and is tried again, only for a read of at most this many
customers."""


class GuardedReader:
    """Refuses reads at once while the breaker is open."""

    def __init__(
        self, reader: Reader, timeout_s: float, rule: breaker.Rule, clock: Callable[[], float]
    ) -> None:
        """`clock` times the breaker's waits only; the duration of a read is measured by time.monotonic."""
        self.reader = reader
        self._timeout_s = timeout_s
        self._rule = rule
        self._clock = clock
        self._state = breaker.State()
        self._latest_failure: str | None = None
        """Reason of the latest read's failure; None when it succeeded, or before the first read."""
        self._counts = dict.fromkeys(("reads", "read_seconds", "failures", "repeated", "refused_fast"), 0.0)

    def read(self, ids: Sequence[str], end: float) -> Stored:
        """Read within the timeout, or twice the timeout where the read before this one succeeded, until `end`
        (of time.monotonic) at the latest.

        Raises FeatureStoreUnavailable.
        """
        decision = breaker.decide(self._state, self._clock())
        if not decision.may_read:
            self._counts["refused_fast"] += 1
            raise FeatureStoreUnavailable("the breaker is open", decision.retry_after_s)
        began = time.monotonic()
        deadline = self._deadline(end)
        try:
            try:
                stored = self.reader.read(ids, deadline)
            except FeatureStoreUnavailable:
                if not self.healthy or len(ids) > CONCLUSIVE_CUSTOMERS:
                    raise
                self._counts["repeated"] += 1
                deadline = self._deadline(end)
                stored = self.reader.read(ids, deadline)
        except FeatureStoreUnavailable as error:
            self._counts["failures"] += 1
            self._latest_failure = str(error)
            # a timeout of many customers, or of the short time that is left before `end`, does not show that
            # the store is down
            if (len(ids) <= CONCLUSIVE_CUSTOMERS and deadline < end) or time.monotonic() < deadline:
                self._record(succeeded=False)
            wait = breaker.decide(self._state, self._clock()).retry_after_s
            error.retry_after_s = max(wait, self._rule.first_wait_s)
            raise
        finally:
            self._counts["reads"] += 1
            self._counts["read_seconds"] += time.monotonic() - began
        self._latest_failure = None
        self._record(succeeded=True)
        return stored

    def _deadline(self, end: float) -> float:
        return min(time.monotonic() + self._timeout_s, end)

    @property
    def healthy(self) -> bool:
        """Whether the latest read succeeded; true before the first read."""
        return self._latest_failure is None

    def health(self) -> dict[str, Any]:
        phase = breaker.decide(self._state, self._clock()).phase
        return {"healthy": self.healthy, "reader": self.reader.name, "breaker": phase} | (
            {} if self.healthy else {"failure": self._latest_failure}
        )

    def stats(self) -> dict[str, float]:
        phase = breaker.decide(self._state, self._clock()).phase
        return {
            **self._counts,
            "healthy": float(self.healthy),
            "breaker_open": {"closed": 0.0, "half_open": 0.5, "open": 1.0}[phase],
            "breaker_opened": float(self._state.times_opened),
        }

    def _record(self, *, succeeded: bool) -> None:
        self._state = breaker.after(self._state, succeeded, self._clock(), self._rule)

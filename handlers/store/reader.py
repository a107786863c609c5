"""The online read: the features of all customers of a batch, by a deadline.

Each read goes through `guarded_reader`, `policies` replaces missing and stale values, and `last_known` values
replace those that cannot be read, if the spec allows it. `opening` opens the store.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from handlers.bundle import Bundle
from handlers.identity import PROBE_ID
from handlers.store.breaker import Rule
from handlers.store.guarded_reader import GuardedReader
from handlers.store.last_known import LastKnown
from handlers.store.policies import Policies, Status, Vectors
from handlers.store.stored import FeatureStoreUnavailable, Reader, Stored, joined

__all__ = ["FeatureStoreUnavailable", "OnlineFeatures", "Status", "Vectors"]

DOWN = "the feature store cannot be read now"
CUSTOMERS_PER_READ = 250
"""Feast itself reads so many in about 35 ms, so that a slow machine meets the deadline too."""
BATCH_TIMEOUT_S = 10.0
"""For all reads of a batch."""


class OnlineFeatures:
    """The opened store. Threads read one after the other."""

    def __init__(
        self,
        reader: Reader,
        bundle: Bundle,
        timeout_s: float = 0.25,
        rule: Rule | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` times the breaker's waits only; the duration of a read is measured by time.monotonic."""
        self.timeout_s = timeout_s
        self.guarded = GuardedReader(reader, timeout_s, rule or Rule(), clock)
        self._inputs = bundle.inputs
        self._policies = Policies(bundle.spec)
        self._may_recall = bundle.spec.get("when_down", "last_known") == "last_known"
        self._last_known = LastKnown([str(feature["name"]) for feature in bundle.spec["features"]])
        self._recalled_customers = 0
        self._turn = threading.Lock()

    def read(self, ids: Sequence[str], now: datetime) -> Vectors:
        """Vectors of the distinct masked `ids` at `now`. The first ids are read first.

        CUSTOMERS_PER_READ ids are read at a time, each time as guarded_reader says, and all within
        BATCH_TIMEOUT_S. The deadline of a customer therefore does not depend on the number of others. When a
        read fails, last known vectors replace it and all later ones. Raises FeatureStoreUnavailable when no
        customer can be read and none has a last known vector.
        """
        if not ids:
            return Vectors((), dict.fromkeys(self._inputs, ()), (), ())
        end = time.monotonic() + max(BATCH_TIMEOUT_S, self.timeout_s)
        if not self._turn.acquire(timeout=2 * self.timeout_s):  # a read may be made twice
            raise FeatureStoreUnavailable("timeout: other reads still wait for the store")
        parts: list[Stored] = []
        failure: FeatureStoreUnavailable | None = None
        try:
            for start in range(0, len(ids), CUSTOMERS_PER_READ):
                parts.append(self._read(ids[start : start + CUSTOMERS_PER_READ], end))  # noqa: PERF401  not lost by an error
        except FeatureStoreUnavailable as error:
            failure = error
        finally:
            self._turn.release()
        if failure is None:
            return self._policies.apply(ids, joined(parts), now)
        return self._recalled(ids, parts, now, failure)

    @property
    def reader(self) -> Reader:
        return self.guarded.reader

    @property
    def healthy(self) -> bool:
        """Whether the latest read succeeded. If not, a worker can still answer from last known values."""
        return self.guarded.healthy

    def health(self) -> dict[str, Any]:
        """The state of the store, for people and metrics. Load balancers should not use it."""
        return self.guarded.health()

    def stats(self) -> dict[str, float]:
        """Counts since the start, and the present state, for metrics."""
        return self.guarded.stats() | {
            "recalled": float(self._recalled_customers),
            "last_known_customers": float(len(self._last_known)),
        }

    def close(self) -> None:
        self.guarded.reader.close()

    def _read(self, ids: Sequence[str], end: float) -> Stored:
        stored = self.guarded.read(ids, end)
        if self._may_recall:
            self._last_known.add(ids, stored)
        return stored

    def _recalled(
        self, ids: Sequence[str], parts: Sequence[Stored], now: datetime, failure: FeatureStoreUnavailable
    ) -> Vectors:
        """The vectors that were read, then last known ones within the TTL. Customers without are `lost`.

        PROBE_ID, the id of health checks, is unknown whether the store can be read or not.
        """
        since = sum(len(part.timestamps) for part in parts)
        recalled = self._last_known.recall(ids[since:])
        lost = set()
        for at, moment in enumerate(recalled.timestamps):
            if moment is None or not self._policies.is_fresh(moment, now):
                recalled.timestamps[at] = None
                for column in recalled.columns.values():
                    column[at] = None
                if ids[since + at] != PROBE_ID:
                    recalled.corrupt[at] = DOWN
                    lost.add(since + at)
        if len(lost) == len(ids):
            raise failure
        self._recalled_customers += sum(moment is not None for moment in recalled.timestamps)
        vectors = self._policies.apply(ids, joined([*parts, recalled]), now)
        return _marked_down(vectors, since, frozenset(lost), failure.retry_after_s)


def _marked_down(vectors: Vectors, since: int, lost: frozenset[int], retry_after_s: float) -> Vectors:
    """The same vectors. Status and reasons from `since` on state that they were not read from the store."""
    status = list(vectors.status)
    reasons = list(vectors.reasons) or [None] * len(status)
    for at in range(since, len(status)):
        if at in lost:
            status[at], reasons[at] = "refused", DOWN
        elif status[at] != "unknown":
            status[at] = "degraded" if status[at] == "ok" else status[at]
            reasons[at] = "; ".join(filter(None, [f"{DOWN}: last known values", reasons[at]]))
    return replace(
        vectors, status=tuple(status), reasons=tuple(reasons), retry_after_s=retry_after_s, lost=lost
    )

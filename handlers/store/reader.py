"""The online read: all customers of a TorchServe batch, by a deadline, whatever the store does.

SQLite and Redis as Feast lays them out are read by hand (`online_sqlite`, `online_redis`), every other store
by Feast itself (`online_feast`); `policies` makes of it what the network is given. A store that fails is left
alone for a while (`breaker`), and meanwhile last known vectors stand in where the spec allows (`last_known`).
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from handlers.bundle import Bundle, check_store
from handlers.environment import number
from handlers.identity import NOBODY
from handlers.store import breaker
from handlers.store.breaker import Rule, State, decide
from handlers.store.config import StoreConfig, read_store_config
from handlers.store.last_known import LastKnown
from handlers.store.policies import Policies, Status, Vectors
from handlers.store.registry import service_tags
from handlers.store.stored import FeatureStoreUnavailable, Reader, Stored, UnknownLayout, joined

__all__ = ["FeatureStoreUnavailable", "OnlineFeatures", "Status", "Vectors", "open_features"]

TIMEOUT = "CHURN_STORE_TIMEOUT_MS"
DOWN = "the feature store cannot be read now"
PART = 250
"""Customers a read. Feast itself reads so many in some 35 ms: a slow machine keeps the deadline, too."""
LONGEST_S = 10.0
"""For all reads of a batch."""
TELLING = 64
"""Customers up to whom a read that takes too long says that the store is down."""


class OnlineFeatures:
    """The opened store. Reads of several threads take their turns."""

    def __init__(
        self,
        reader: Reader,
        bundle: Bundle,
        timeout_s: float = 0.25,
        rule: Rule | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` only times the breaker's waits; how long a read takes is the machine's own time."""
        self.reader = reader
        self.timeout_s = timeout_s
        self._inputs = bundle.inputs
        self._policies = Policies(bundle.spec)
        self._may_recall = bundle.spec.get("when_down", "last_known") == "last_known"
        self._last_known = LastKnown([str(feature["name"]) for feature in bundle.spec["features"]])
        self._rule = rule or Rule()
        self._clock = clock
        self._breaker = State()
        self._turn = threading.Lock()
        self._latest_failure: str | None = None
        """Of the latest read; None: it succeeded, or there was none yet."""
        self._counts = dict.fromkeys(("reads", "read_seconds", "failures", "refused_fast", "recalled"), 0.0)

    def read(self, ids: Sequence[str], now: datetime) -> Vectors:
        """Vectors of the masked `ids` (each once) at `now`; the first ones have the best chances.

        They are read PART at a time, each within `timeout_s`, all within LONGEST_S: the deadline of a
        customer does not depend on how many others are asked for. From the first part on that cannot be read,
        last known vectors stand in. Raises FeatureStoreUnavailable when nobody can be read and nothing
        stands in for anybody.
        """
        if not ids:
            return Vectors((), dict.fromkeys(self._inputs, ()), (), ())
        end = time.monotonic() + max(LONGEST_S, self.timeout_s)
        if not self._turn.acquire(timeout=self.timeout_s):
            raise FeatureStoreUnavailable("timeout: other reads still wait for the store")
        parts: list[Stored] = []
        failure: FeatureStoreUnavailable | None = None
        try:
            for start in range(0, len(ids), PART):
                parts.append(self._read(ids[start : start + PART], end))  # noqa: PERF401  what was read stays
        except FeatureStoreUnavailable as error:
            failure = error
        finally:
            self._turn.release()
        if failure is None:
            return self._policies.apply(ids, joined(parts), now)
        return self._recalled(ids, parts, now, failure)

    @property
    def healthy(self) -> bool:
        """Whether the latest read came from the store. Says nothing of whether this worker can answer."""
        return self._latest_failure is None

    def health(self) -> dict[str, Any]:
        """How the store does: for people and for metrics, not for load balancers."""
        phase = decide(self._breaker, self._clock()).phase
        return {"healthy": self.healthy, "reader": self.reader.name, "breaker": phase} | (
            {} if self.healthy else {"failure": self._latest_failure}
        )

    def stats(self) -> dict[str, float]:
        """Counts since the start, and how things are: for metrics."""
        decision = decide(self._breaker, self._clock())
        return {
            **self._counts,
            "healthy": float(self.healthy),
            "breaker_open": {"closed": 0.0, "half_open": 0.5, "open": 1.0}[decision.phase],
            "breaker_opened": float(self._breaker.times_opened),
            "last_known_customers": float(len(self._last_known)),
        }

    def close(self) -> None:
        self.reader.close()

    def _read(self, ids: Sequence[str], end: float) -> Stored:
        deadline = min(time.monotonic() + self.timeout_s, end)
        decision = decide(self._breaker, self._clock())
        if not decision.may_read:
            self._counts["refused_fast"] += 1
            raise FeatureStoreUnavailable("the breaker is open", decision.retry_after_s)
        began = time.monotonic()
        try:
            stored = self.reader.read(ids, deadline)
        except FeatureStoreUnavailable as error:
            self._counts["failures"] += 1
            self._latest_failure = str(error)
            # that many customers, or such a short rest of the time, take too long is no sign of a store
            # that is down
            if (len(ids) <= TELLING and deadline < end) or time.monotonic() < deadline:
                self._settle(succeeded=False)
            error.retry_after_s = max(
                decide(self._breaker, self._clock()).retry_after_s, self._rule.first_wait_s
            )
            raise
        finally:
            self._counts["reads"] += 1
            self._counts["read_seconds"] += time.monotonic() - began
        self._latest_failure = None
        self._settle(succeeded=True)
        if self._may_recall:
            self._last_known.keep(ids, stored)
        return stored

    def _settle(self, *, succeeded: bool) -> None:
        self._breaker = breaker.after(self._breaker, succeeded, self._clock(), self._rule)

    def _recalled(
        self, ids: Sequence[str], parts: Sequence[Stored], now: datetime, failure: FeatureStoreUnavailable
    ) -> Vectors:
        """What was read, and behind it last known vectors within the ttl; who has none is `lost`.

        NOBODY is whom health checks ask for: unknown, whether or not the store can say so.
        """
        since = sum(len(part.timestamps) for part in parts)
        recalled = self._last_known.recall(ids[since:])
        lost = set()
        for at, moment in enumerate(recalled.timestamps):
            if moment is None or not self._policies.fresh(moment, now):
                recalled.timestamps[at] = None
                for column in recalled.columns.values():
                    column[at] = None
                if ids[since + at] != NOBODY:
                    recalled.corrupt[at] = DOWN
                    lost.add(since + at)
        if len(lost) == len(ids):
            raise failure
        self._counts["recalled"] += sum(moment is not None for moment in recalled.timestamps)
        vectors = self._policies.apply(ids, joined([*parts, recalled]), now)
        return marked_down(vectors, since, frozenset(lost), failure.retry_after_s)


def marked_down(vectors: Vectors, since: int, lost: frozenset[int], retry_after_s: float) -> Vectors:
    """The same vectors, saying of each from `since` on that it is not what the store holds now."""
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


def open_features(
    model_dir: Path, bundle: Bundle, environment: Mapping[str, str] | None = None
) -> OnlineFeatures:
    """The store that feature_store.yaml in `model_dir` names, checked to be that of the bundle's spec.

    `environment` is `os.environ` unless given; Feast, where it has to read, only sees the latter. Raises
    BundleError when the store is of another spec, or cannot be opened for a reason that will not pass.
    """
    environment = os.environ if environment is None else environment
    timeout_s = number(environment, TIMEOUT, "250", above=0) / 1000
    config = read_store_config(model_dir, environment)
    service = str(bundle.spec["service"])
    if (tags := service_tags(config, service)) is not None:
        check_store(bundle, service, tags)
    reader = _fast_reader(config, bundle, timeout_s)
    if reader is None or tags is None:
        from handlers.store.online_feast import FeastReader, open_feast

        store, feature_service = open_feast(config, service)
        check_store(bundle, service, feature_service.tags)
        if reader is None:
            names = [str(feature["name"]) for feature in bundle.spec["features"]]
            reader = FeastReader(store, feature_service, names, bundle.join_key)
    return OnlineFeatures(reader, bundle, timeout_s)


def _fast_reader(config: StoreConfig, bundle: Bundle, timeout_s: float) -> Reader | None:
    """Our own reader, if the store is laid out as we know it; else None."""
    view = str(bundle.spec["view"])
    features = [(str(feature["name"]), str(feature["dtype"])) for feature in bundle.spec["features"]]
    kind, online = config.online.get("type"), config.online
    try:
        if config.readable_without_feast and kind == "sqlite" and set(online) <= {"type", "path"}:
            from handlers.store.online_sqlite import SqliteReader

            path = config.path(str(online.get("path", "data/online.db")))
            return SqliteReader(path, f"{config.project}_{view}", features, bundle.join_key, timeout_s)
        if config.readable_without_feast and kind == "redis":
            from handlers.store.online_redis import RedisReader
            from handlers.store.redis_address import address_of

            return RedisReader(address_of(online), config.project, view, features, bundle.join_key)
    except (UnknownLayout, ImportError):
        return None
    return None

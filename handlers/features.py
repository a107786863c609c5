"""The online read: all customers of a TorchServe batch at once, by a deadline, whatever the store does.

SQLite and Redis as Feast lays them out are read by hand (`online_sqlite`, `online_redis`), every other store
by Feast itself (`online_feast`); `policies` makes of it what the network is given. A store that fails is left
alone for a while (`breaker`), and meanwhile last known vectors stand in where the spec allows (`last_known`).
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from handlers import breaker
from handlers.breaker import Rule, State, decide
from handlers.bundle import Bundle, check_store
from handlers.environment import number
from handlers.last_known import LastKnown
from handlers.policies import Policies, Status, Vectors
from handlers.registry import service_tags
from handlers.store_config import StoreConfig, read_store_config
from handlers.stored import FeatureStoreUnavailable, Reader, Stored, UnknownLayout

__all__ = ["FeatureStoreUnavailable", "OnlineFeatures", "Status", "Vectors", "open_features"]

TIMEOUT = "CHURN_STORE_TIMEOUT_MS"
DOWN = "the feature store cannot be read now"


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
        self._counts = dict.fromkeys(("reads", "read_seconds", "failures", "refused_fast", "recalled"), 0.0)

    def read(self, ids: Sequence[str], now: datetime) -> Vectors:
        """Vectors of the masked `ids` (each once) at `now`, with one read of the store whatever their number.

        Takes at most `timeout_s`. Raises FeatureStoreUnavailable when the store cannot be read and nobody's
        last known vector stands in.
        """
        if not ids:
            return Vectors((), dict.fromkeys(self._inputs, ()), (), ())
        deadline = time.monotonic() + self.timeout_s
        if not self._turn.acquire(timeout=self.timeout_s):
            raise FeatureStoreUnavailable("timeout: other reads still wait for the store")
        try:
            stored = self._read(ids, deadline)
        except FeatureStoreUnavailable as error:
            return self._recall(ids, now, error)
        finally:
            self._turn.release()
        return self._policies.apply(ids, stored, now)

    def stats(self) -> dict[str, float]:
        """Counts since the start, and how things are: for metrics."""
        decision = decide(self._breaker, self._clock())
        return {
            **self._counts,
            "breaker_open": {"closed": 0.0, "half_open": 0.5, "open": 1.0}[decision.phase],
            "breaker_opened": float(self._breaker.times_opened),
            "last_known_customers": float(len(self._last_known)),
        }

    def close(self) -> None:
        self.reader.close()

    def _read(self, ids: Sequence[str], deadline: float) -> Stored:
        decision = decide(self._breaker, self._clock())
        if not decision.may_read:
            self._counts["refused_fast"] += 1
            raise FeatureStoreUnavailable("the breaker is open", decision.retry_after_s)
        began = time.monotonic()
        try:
            stored = self.reader.read(ids, deadline)
        except FeatureStoreUnavailable as error:
            self._counts["failures"] += 1
            self._settle(succeeded=False)
            error.retry_after_s = max(
                decide(self._breaker, self._clock()).retry_after_s, self._rule.first_wait_s
            )
            raise
        finally:
            self._counts["reads"] += 1
            self._counts["read_seconds"] += time.monotonic() - began
        self._settle(succeeded=True)
        if self._may_recall:
            self._last_known.keep(ids, stored)
        return stored

    def _settle(self, *, succeeded: bool) -> None:
        self._breaker = breaker.after(self._breaker, succeeded, self._clock(), self._rule)

    def _recall(self, ids: Sequence[str], now: datetime, error: FeatureStoreUnavailable) -> Vectors:
        """Last known vectors within the ttl, marked `degraded`; who has none is refused."""
        if not self._may_recall:
            raise error
        stored = self._last_known.recall(ids)
        for at, moment in enumerate(stored.timestamps):
            if moment is None or not self._policies.fresh(moment, now):
                stored.timestamps[at] = None
                stored.corrupt[at] = DOWN
                for column in stored.columns.values():
                    column[at] = None
        if len(stored.corrupt) == len(ids):
            raise error
        self._counts["recalled"] += len(ids) - len(stored.corrupt)
        vectors = self._policies.apply(ids, stored, now)
        return marked_down(vectors, stored.corrupt, error.retry_after_s)


def marked_down(vectors: Vectors, lost: Mapping[int, str], retry_after_s: float) -> Vectors:
    """The same vectors, saying of each that it is not what the store holds now."""
    status: list[Status] = []
    reasons: list[str | None] = []
    for at, one in enumerate(vectors.status):
        reason = vectors.reasons[at] if vectors.reasons else None
        if at in lost:
            status.append("refused")
            reasons.append(lost[at])
        else:
            status.append("degraded" if one == "ok" else one)
            reasons.append("; ".join(filter(None, [f"{DOWN}: last known values", reason])))
    return Vectors(
        vectors.ids,
        vectors.columns,
        vectors.timestamps,
        tuple(status),
        vectors.missing,
        tuple(reasons),
        retry_after_s,
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
        from handlers.online_feast import FeastReader, open_feast

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
        if config.usual and kind == "sqlite" and set(online) <= {"type", "path"}:
            from handlers.online_sqlite import SqliteReader

            path = config.path(str(online.get("path", "data/online.db")))
            return SqliteReader(path, f"{config.project}_{view}", features, bundle.join_key, timeout_s)
        if config.usual and kind == "redis":
            from handlers.online_redis import RedisReader, address_of

            return RedisReader(address_of(online), config.project, view, features, bundle.join_key)
    except (UnknownLayout, ImportError):
        return None
    return None

"""A service whose autoscaler has added pods: a canary gets as many as its share needs, at each stage."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from threading import Event, Thread

import httpx
import numpy as np
import pytest

from support.cluster.addresses import Addresses
from support.cluster.inventory import Inventory
from support.cluster.own_overlay import Size
from support.cluster.service import Requests, Service, service_in
from support.cluster.turns import Turns
from support.waits import within

PER_SECOND = 70
PODS = 6
SIZE = Size(cpu="100m", memory="450Mi", most_pods=16, target=100)
"""So little CPU that the autoscaler adds pods under this load, and that a node of two cores has room."""
STEADY_S = 60.0
SHARES = (10, 50, 100)
BEFORE_S, EVERY_S = 30.0, 6.0
MOST_RATIO = 1.5


@pytest.fixture(scope="module")
def large(
    cluster: Inventory, evidence: None, stores: Addresses, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    cluster.needs_standard()
    if not cluster.metrics:
        pytest.skip("cluster: no metrics API (metrics-server), without which nothing is scaled")
    with service_in(tmp_path_factory.mktemp("large"), stores, "standard", SIZE) as made:
        yield made


def test_canary_and_stable_have_the_same_load_by_pod(large: Service) -> None:
    turns = Turns(large)
    with large.controller(), Requests(large, PER_SECOND) as requests:
        stable_pods = within(900, scaled(large), lambda: large.ready_pods())
        with Loads(large) as loads:
            time.sleep(BEFORE_S)
            turns.deploy("a drill")
            ended = large.ended(900)
    print(f"stable at {stable_pods} pods by its autoscaler: {requests.summary}")
    print(loads.table())
    assert ended["phase"] == "promoted", ended
    assert requests.lost == []
    for share in SHARES:
        canary, stable = loads.of(share)
        assert canary <= MOST_RATIO * stable, loads.table()
        # two pods are the least of a canary, which may be more than a small share needs
        assert share == SHARES[0] or stable <= MOST_RATIO * canary, loads.table()


def scaled(service: Service) -> Callable[[], int]:
    """The number of pods when the autoscaler has added enough and changes it no more; 0: not yet."""
    last, since = 0, time.monotonic()

    def found() -> int:
        nonlocal last, since
        now = len(service.ready_pods())
        if now != last:
            last, since = now, time.monotonic()
        return last if last >= PODS and time.monotonic() - since >= STEADY_S else 0

    return found


class Loads:
    """Requests a second of each pod, by the canary's share at that time and the model of the pod."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._last: tuple[float, int, dict[tuple[str, str], float]] | None = None
        self._seen: dict[tuple[int, str], list[float]] = defaultdict(list)
        self._first = service.first.version
        self._over = Event()
        self._thread = Thread(target=self._run)

    def __enter__(self) -> "Loads":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            self._sample()

    def _sample(self) -> None:
        share, counts, now = self._service.share, self._counts(), time.monotonic()
        if self._last is not None and self._last[1] == share:
            then, _, before = self._last
            for (pod, version), count in counts.items():
                if (pod, version) in before and count > before[pod, version]:
                    self._seen[share, version].append((count - before[pod, version]) / (now - then))
        self._last = now, share, counts

    def _counts(self) -> dict[tuple[str, str], float]:
        query = f'sum by (pod, model_version) (churn_requests_total{{namespace="{self._service.namespace}"}})'
        answer = httpx.get(f"{self._service.to.prometheus}/api/v1/query", params={"query": query}, timeout=20)
        return {
            (one["metric"]["pod"], one["metric"]["model_version"]): float(one["value"][1])
            for one in answer.json()["data"]["result"]
        }

    def _load(self, share: int, canary: bool) -> float:
        found = [
            load
            for (at, version), loads in self._seen.items()
            for load in loads
            if at == share and (version != self._first) == canary
        ]
        return float(np.mean(found)) if found else float("nan")

    def of(self, share: int) -> tuple[float, float]:
        """A pod of the canary and one of stable; at 100 % stable is that before the rollout."""
        return self._load(share, True), self._load(0 if share == 100 else share, False)

    def table(self) -> str:
        shares = sorted({share for share, _ in self._seen})
        return "\n".join(
            f"{share} %: a pod of stable {self._load(share, False):.1f} requests a second, "
            f"of the canary {self._load(share, True):.1f}"
            for share in shares
        )

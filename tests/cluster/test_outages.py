"""Rollouts of a good model on a real cluster, under load, while something is away: nothing is lost, and the
model is promoted in the end.

Each is one rollout; the models of the two take turns.
"""

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import numpy as np
import pytest

from support.cluster.inventory import done
from support.cluster.outages import hung, kserve_away, no_room
from support.cluster.service import Requests, Service
from support.waits import within

PER_SECOND = 40
HANG = """
import os, signal
for pid in filter(str.isdigit, os.listdir("/proc")):
    if b"model_service_worker" in open(f"/proc/{pid}/cmdline", "rb").read():
        os.kill(int(pid), signal.SIGSTOP)
        break
"""
AWAY: dict[str, tuple[Callable[[], AbstractContextManager[None]], float]] = {
    "the API server": (lambda: hung("apiserver"), 30),
    "the gateway's control plane": (lambda: hung("contour"), 60),
    "KServe": (kserve_away, 60),
    "Prometheus": (lambda: hung("prometheus"), 60),
    "room for a pod": (no_room, 150),
}
"""What -> how it goes away, and for how many seconds."""


class Turns:
    """Two models of one service that are promoted in turn."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._models = [service.first, service.churn.package(seed=2)]
        assert service.apply() == 0
        service.churn.deploy(self._models[0], "the first model")
        within(120, lambda: len(service.ask()) > 0)

    def promote(self, meanwhile: Callable[[], None]) -> Requests:
        """A rollout of the other model; `meanwhile` is called when it has begun."""
        before = self.service.served
        if before.rpartition("/")[2].startswith(self._models[0].version):
            self._models.reverse()
        with Requests(self.service, PER_SECOND) as requests:
            self.service.churn.deploy(self._models[0], "a drill")
            meanwhile()
            ended = self.service.ended(900)
        assert ended["phase"] == "promoted", ended
        assert self.service.served != before
        return requests


@pytest.fixture(scope="module")
def turns(service: Service) -> Turns:
    return Turns(service)


@pytest.mark.parametrize("what", AWAY)
def test_nothing_is_lost_while_something_is_away(turns: Turns, what: str) -> None:
    away, for_s = AWAY[what]

    def meanwhile() -> None:
        with away():
            time.sleep(for_s)

    with turns.service.controller():
        requests = turns.promote(meanwhile)
    print(f"{what} away for {for_s:g} s: {requests.summary}")
    assert requests.lost == []


def test_a_worker_that_hangs_fails_its_requests_for_five_seconds(turns: Turns) -> None:
    """Requests that met it fail after `serving.pod_response_timeout_s`; the others are as fast as before."""
    service = turns.service
    within(180, lambda: len(service.ready_pods()) >= 2)
    pod = service.ready_pods()[0]
    with Requests(service, PER_SECOND) as requests:
        time.sleep(20)
        hung_at = time.monotonic()
        done("exec", "-n", service.namespace, pod, "-c", "kserve-container", "--", "python", "-c", HANG)
        time.sleep(40)
    before = [one for one in requests.sent if one.at + one.seconds < hung_at and not one.trouble]
    after = [one for one in requests.sent if one.at >= hung_at and not one.trouble]
    failed = [one for one in requests.sent if one.trouble]
    span_s = max((one.at for one in failed), default=hung_at) - hung_at
    quantiles = [float(np.quantile([one.seconds for one in side], 0.99)) for side in (before, after)]
    print(
        f"a hung worker: {len(failed)} of {len(requests.sent)} failed, the last sent {span_s:.1f} s after; "
        f"p99 of the others {quantiles[0]:.3f} s before, {quantiles[1]:.3f} s after"
    )
    assert span_s <= 5.5
    assert {one.trouble[:3] for one in failed} <= {"500", "503", "504"}


def test_nothing_is_lost_when_the_controller_is_killed(turns: Turns) -> None:
    with ExitStack() as controllers:
        first = controllers.enter_context(turns.service.controller())

        def meanwhile() -> None:
            first.send_signal(signal.SIGKILL)
            first.wait(10)
            controllers.enter_context(turns.service.controller())

        requests = turns.promote(meanwhile)
    print(f"the controller killed: {requests.summary}")
    assert requests.lost == []


def test_nothing_is_lost_when_a_pod_of_the_canary_is_deleted(turns: Turns) -> None:
    service = turns.service

    def meanwhile() -> None:
        within(300, lambda: service.status()["phase"] == "stage")
        newest = max(service.pods(), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        done("delete", "pod", newest["metadata"]["name"], "-n", service.namespace, "--wait=false")

    with service.controller():
        requests = turns.promote(meanwhile)
    print(f"a pod of the canary deleted: {requests.summary}")
    assert requests.lost == []

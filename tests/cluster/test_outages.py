"""Rollouts of a good model on a real cluster, under load, while something is away: nothing is lost, and the
model is promoted in the end.

Each is one rollout; the models of the two take turns.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest

from support.cluster.inventory import done
from support.cluster.outages import database_away, hung, kserve_away, no_room
from support.cluster.service import Requests, Service
from support.cluster.turns import Turns
from support.waits import within

PER_SECOND = 70
HANG = """
import os, signal
for pid in filter(str.isdigit, os.listdir("/proc")):
    if b"model_service_worker" in open(f"/proc/{pid}/cmdline", "rb").read():
        os.kill(int(pid), signal.SIGSTOP)
        break
"""
AWAY: dict[str, tuple[Callable[[Service], AbstractContextManager[None]], float]] = {
    "the API server": (lambda service: hung("apiserver"), 30),
    "the gateway's control plane": (lambda service: hung("contour"), 60),
    "KServe": (lambda service: kserve_away(), 60),
    "Prometheus": (lambda service: hung("prometheus"), 60),
    "the database": (lambda service: database_away(service.to, service.churn.rollouts), 60),
    "room for a pod": (lambda service: no_room(), 300),
}
"""What -> how it goes away, and for how many seconds."""


@pytest.fixture(scope="module")
def turns(evidence: None, service: Service) -> Turns:
    return Turns(service)


@pytest.mark.parametrize("what", AWAY)
def test_nothing_is_lost_while_something_is_away(turns: Turns, what: str) -> None:
    away, for_s = AWAY[what]

    def meanwhile() -> None:
        with away(turns.service):
            time.sleep(for_s)

    with turns.service.controller():
        requests = turns.promote(PER_SECOND, meanwhile)
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
    with turns.service.controller() as controller:
        requests = turns.promote(PER_SECOND, controller.killed)
    print(f"the controller killed: {requests.summary}")
    assert requests.lost == []


def test_nothing_is_lost_when_a_pod_of_the_canary_is_deleted(turns: Turns) -> None:
    """It has a spare one as soon as it has a share."""
    service = turns.service
    had: list[int] = []

    def meanwhile() -> None:
        within(400, lambda: service.status()["look"]["target"]["weight"] > 0, ignored=(TypeError, KeyError))
        pods = service.ready_pods_of_canary()
        done("delete", "pod", pods[0], "-n", service.namespace, "--wait=false")
        had.append(len(pods))

    with service.controller():
        requests = turns.promote(PER_SECOND, meanwhile)
    print(f"a pod of the canary's {had[0]} deleted: {requests.summary}")
    assert had[0] >= 2
    assert requests.lost == []


def test_nothing_is_lost_when_a_person_ends_a_rollout(turns: Turns) -> None:
    service = turns.service
    with service.controller(), Requests(service, PER_SECOND) as requests:
        before = turns.deploy("a drill")
        within(300, lambda: service.share >= 50)
        service.churn("rollout", "abort", "--reason", "a drill")
        ended = service.ended()
        within(60, lambda: service.share == 0)
    print(f"ended by a person: {requests.summary}")
    assert (ended["phase"], service.served) == ("aborted", before)
    assert requests.lost == []

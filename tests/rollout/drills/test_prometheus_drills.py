"""Both modes of KServe, real pods, real clients: judged by a real Prometheus through PromQL, and by it alone.

Envoy's counts are the gateway's evidence, the handlers' own the rest. Each request is dealt anew, as on a
cluster; nothing is mirrored, and customers are not known.
"""

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from rollout.evidence import Window
from rollout.observers.observer import Opened
from rollout.state import Rollout
from rollout.targets.kserve.probe import unanswered
from support.kube.cluster import FIRST, SECOND
from support.served_bundle import ServedBundle

from support.drills.cluster_rig import ON_TRIAL  # isort: skip
from support.drills.faults import (  # isort: skip
    FAILS,
    KILLED,
    MISCALIBRATED,
    NEVER_READY,
    REFUSES_TO_LOAD,
    SHIFTED,
    SLOW,
    STALE,
    Changes,
    scores_of,
)
from support.servers.real_prometheus import needs_prometheus  # isort: skip
from support.drills.rig import VERSION, Clients, Rig, altered, drilled, plan, running_rig, utc_now  # isort: skip
from support.drills.scraped import Judged, Scraped, judged_by_prometheus, scraping  # isort: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), needs_prometheus]
STABLE = "0123456789ab"
STAGES = [
    {"weight": 0, "mirror": True, "min_s": 2, "max_s": 120},  # dark: there is nothing to compare yet
    {"weight": 20, "min_s": 3, "max_s": 120, "min_requests": 60},
    {"weight": 50, "min_s": 3, "max_s": 120, "min_requests": 100},
    {"weight": 100, "min_s": 3, "max_s": 120, "min_requests": 100},
]
QUESTIONS = 25
SLOW_MACHINE = {"objective_ms": 800, "max_p99_ratio": 3.0}
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def rig(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running_rig(bundle, tmp_path_factory.mktemp("prometheus-drills")) as made:
        yield made


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    with scraping(tmp_path_factory.mktemp("scraping")) as made:
        yield made


@pytest.fixture
def scraped(prometheus: tuple[str, Path]) -> Scraped:
    return Scraped(*prometheus, drill=str(next(numbers)))


@pytest.fixture(params=["knative", "standard"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def asked_before(there: Judged) -> None:
    """Stable has served before a rollout begins, and what it and Envoy have counted by then is known."""
    scores_of(there.url)
    there.wait_until_scraped()


def counted(there: Judged, since: datetime) -> Window:
    """The observer's evidence since then, once two looks are equal."""
    config = plan(kserve=there.settings)
    looks: list[Window] = []
    while len(looks) < 3 or totals(looks[-1]) != totals(looks[-2]):
        time.sleep(3)  # a worker sends once a second what it has counted
        looks += there.observer(config).observe([Opened(100, False, since)], utc_now()).windows
        assert len(looks) < 20, "counts grow without requests"
    return looks[-1]


def totals(window: Window) -> list[int]:
    return [count for arm in (window.stable, window.canary) for count in (arm.requests, arm.customers)]


def test_a_good_candidate_is_promoted_and_what_callers_sent_is_all_that_counts(
    rig: Rig, bundle: ServedBundle, tmp_path: Path, scraped: Scraped, mode: str
) -> None:
    candidate = altered(bundle, tmp_path)
    with judged_by_prometheus(rig, mode, candidate, scraped) as (there, pods):
        asked_before(there)
        since, clients = utc_now(), Clients(rig.url, sticky=False)
        config = plan(stages=STAGES, rules={"latency": SLOW_MACHINE}, kserve=there.settings)
        drill = drilled(there, tmp_path, config, ON_TRIAL, clients=clients)
        assert drill.rollout.phase == "promoted", drill.rollout.outcome
        assert clients.failed == 0, clients.failures[:3]
        shares = [traffic.get(SECOND.archive, 0) for traffic in pods.model.traffic]
        assert [share for n, share in enumerate(shares) if n == 0 or share != shares[n - 1]] == [
            0, 20, 50, 100,
        ]  # fmt: skip
        assert there.target.observe().stable == SECOND.sha256
        assert pods.deployments["canary"] in pods.made(), "the name that Prometheus gave it"
        for _ in range(QUESTIONS):  # a controller's, through the gateway, which counts them like all others
            assert unanswered(rig.url, "http://latest-churn-predictor.churn.example", "churn") is None
        window = counted(there, since)
        probes = there.probes()
        assert probes["gateway"] == QUESTIONS and probes["direct"] > 600, "Envoy's own, and those to warm up"
        print(clients.versions, window.stable.requests, window.canary.requests)
        for version, arm in ((STABLE, window.stable), (VERSION, window.canary)):
            assert arm.requests == arm.customers == len(arm.scores) == clients.versions[version]
            assert (arm.errors, arm.missing) == (0, 0)
        assert FIRST.archive not in pods.model.traffic[-1]


HALF = [{"weight": 50, "min_s": 60, "max_s": 240, "min_requests": 4000}, {"weight": 100, "max_s": 120}]
"""Long enough for a fault that is seen now and then."""
ONLY_SCORES = {"latency": None, "decision_rate": None}


@dataclass(frozen=True)
class Case:
    """A fault, the plan that it meets, and how the rollout's outcome begins: with the rule that ended it."""

    fault: Changes
    ended_by: tuple[str, ...]
    plan: Mapping[str, Any] = field(default_factory=dict)


CASES = {
    "fails two percent": Case(FAILS, ("error_rate: ",), {"stages": HALF}),
    "slow": Case(SLOW, ("latency: ",), {"stages": HALF, "block_s": 2}),
    "shifted scores": Case(SHIFTED, ("score_shift: ",), {"rules": ONLY_SCORES}),
    "stale features": Case(STALE, ("features: customers with stale features",)),
    # labels come after the horizon, and the prediction log of a cluster is elsewhere: Prometheus has the
    # scores and the decisions, which such a model moves
    "miscalibrated": Case(MISCALIBRATED, ("score_shift: ", "decision_rate: ")),
    "killed": Case(KILLED, ("error_rate: ", "the canary ")),
    "never ready": Case(NEVER_READY, ("the canary was not ready within 15 s",), {"ready_timeout_s": 15}),
    "refuses to load": Case(
        REFUSES_TO_LOAD, ("the canary was not ready within 30 s",), {"ready_timeout_s": 30}
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_faulty_candidate_is_taken_back(
    rig: Rig, bundle: ServedBundle, tmp_path: Path, scraped: Scraped, mode: str, name: str
) -> None:
    case = CASES[name]
    settings = {"stages": STAGES, "rules": {"latency": SLOW_MACHINE}, **case.plan}
    candidate = altered(bundle, tmp_path, case.fault)
    with judged_by_prometheus(rig, mode, candidate, scraped) as (there, pods):
        asked_before(there)
        config = plan(**settings, kserve=there.settings)
        meanwhile = killing(rig) if case.fault is KILLED else nothing
        drill = drilled(there, tmp_path, config, ON_TRIAL, meanwhile)
        print(f"{mode}: {name}: at {drill.weights} %, {drill.seconds:.0f} s: {drill.rollout.outcome}")
        assert drill.rollout.phase == "rolled_back", drill.rollout.outcome
        assert drill.rollout.outcome.startswith(case.ended_by), drill.rollout.outcome
        assert (drill.clients.versions[VERSION] > 0) is (case.fault not in (NEVER_READY, REFUSES_TO_LOAD))
        assert drill.clients.failed == 0, drill.clients.failures[:3]
        state = there.target.observe()
        assert (state.canary, state.stable, state.weight) == (None, FIRST.sha256, 0)
        assert pods.model.traffic[-1] == {FIRST.archive: 100}


def nothing(rollout: Rollout) -> None:
    """No harm meanwhile."""


def killing(rig: Rig) -> Callable[[Rollout], None]:
    """Kills the canary's TorchServe once half of the requests are its own."""
    killed: list[int] = []

    def kill(rollout: Rollout) -> None:
        server = rig.supervisor.canary.server
        if rollout.phase == "stage" and rollout.stage == 2 and not killed and server is not None:
            os.kill(server.pid, signal.SIGKILL)
            killed.append(server.pid)

    return kill

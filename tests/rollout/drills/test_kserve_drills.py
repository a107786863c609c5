"""A rollout on the model of a cluster whose pods are real (cluster_rig.py), judged by the live observer.

The same judged by a real Prometheus, and all faults: test_prometheus_drills.py.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kube.cluster import FIRST, SECOND
from support.served_bundle import ServedBundle

from support.drills.cluster_rig import on_cluster  # isort: skip
from support.drills.faults import fails  # isort: skip
from support.drills.rig import VERSION, Rig, altered, drilled, plan, running_rig  # isort: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
STAGES = [
    {"weight": 0, "mirror": True, "min_s": 2, "max_s": 120},  # dark: there is nothing to compare yet
    {"weight": 20, "min_s": 3, "max_s": 300, "min_requests": 40},
    {"weight": 50, "min_s": 3, "max_s": 300, "min_requests": 40},
    {"weight": 100, "min_s": 3, "max_s": 300, "min_requests": 40},
]
RULES = {
    "latency": {"objective_ms": 800, "max_p99_ratio": 3.0},  # slow for this machine
    # Envoy is sticky: a fifth of these customers are few, however often they ask
    **{rule: {"min_customers": 20} for rule in ("features", "score_shift", "decision_rate")},
}


@pytest.fixture(scope="module")
def rig(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running_rig(bundle, tmp_path_factory.mktemp("kserve-drills")) as made:
        yield made


@pytest.mark.parametrize("mode", ["knative", "standard"])
def test_a_good_candidate_reaches_every_caller(
    rig: Rig, bundle: ServedBundle, tmp_path: Path, mode: str
) -> None:
    with on_cluster(rig, mode, altered(bundle, tmp_path)) as (there, pods):
        drill = drilled(there, tmp_path, plan(stages=STAGES, rules=RULES), SECOND)
        assert drill.rollout.phase == "promoted", drill.rollout.outcome
        assert drill.clients.failed == 0, drill.clients.failures[:3]
        assert set(drill.clients.versions) == {"0123456789ab", VERSION}
        shares = [traffic.get(SECOND.archive, 0) for traffic in pods.model.traffic]
        assert [share for n, share in enumerate(shares) if n == 0 or share != shares[n - 1]] == [
            0, 20, 50, 100,
        ]  # fmt: skip
        assert rig.supervisor.gateway.split().weight == 100


@pytest.mark.parametrize("mode", ["knative", "standard"])
def test_a_candidate_that_fails_is_taken_back(
    rig: Rig, bundle: ServedBundle, tmp_path: Path, mode: str
) -> None:
    candidate = altered(bundle, tmp_path, fails(0.3))
    with on_cluster(rig, mode, candidate) as (there, pods):
        drill = drilled(there, tmp_path, plan(stages=STAGES, rules=RULES), SECOND)
        assert drill.rollout.phase == "rolled_back"
        assert "error_rate" in drill.rollout.outcome
        assert drill.clients.versions[VERSION] > 0
        assert drill.clients.failed == 0, drill.clients.failures[:3]
        state = there.target.observe()
        assert (state.canary, state.stable, state.weight) == (None, FIRST.sha256, 0)
        assert pods.model.traffic[-1].get(SECOND.archive, 0) == 0

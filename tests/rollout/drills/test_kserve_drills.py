"""A rollout on the model of a cluster whose pods are real: what KServe's split says, Envoy and TorchServe do.

The targets speak to the API server of tests/kube; a pod of the candidate there is a TorchServe here, it is
ready there when Envoy's question for a prediction is answered here, and callers get the cluster's weights.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from kube import knative, standard
from kube.api_server import ApiServer
from kube.cluster import FIRST, SECOND, client, cluster, config
from served_bundle import ServedBundle

from data.errors import ServingError
from rollout.targets.knative import Knative
from rollout.targets.standard import Standard
from rollout.targets.target import Candidate

from rig import VERSION, Rig, altered, drilled, plan, rig  # isort: skip

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
ANSWERED = "    def _answer(self, request: Request, rows: Sequence[int], scored: Scored) -> Answer:\n"


@pytest.fixture(scope="module")
def house(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig(bundle, tmp_path_factory.mktemp("kserve-drills")) as made:
        yield made


@dataclass
class Pods:
    """Runs what the model of the cluster says."""

    house: Rig
    server: ApiServer
    model: knative.Knative | standard.Standard
    candidate: Candidate
    """The archive that lies at SECOND's address."""
    up: bool = False

    def ready_after(self, uri: str) -> int | None:
        return 0 if self.up or uri != SECOND.archive else None

    def follow(self) -> None:
        with self.server.store.lock:
            share = self.model.traffic[-1].get(SECOND.archive, 0)
            wanted = share > 0 or self._wanted()
        state = self.house.target.observe()
        self.up = state.ready and state.canary is not None
        if wanted and state.canary is None:
            self.house.target.deploy(self.candidate)
        elif not wanted and state.canary is not None:
            self.house.target.rollback()
        elif self.up and state.weight != share:
            self.house.target.set_weight(share)

    def _wanted(self) -> bool:
        (service,) = self.server.store.of("serving.kserve.io", "inferenceservices")
        parts = [service["spec"]["predictor"]]
        parts += [entry["predictor"] for entry in service["spec"].get("canary") or []]
        return any(part["model"]["storageUri"] == SECOND.archive for part in parts)


@contextmanager
def on_cluster(house: Rig, mode: str, candidate: Candidate) -> Iterator[tuple[Rig, Pods]]:
    model: knative.Knative | standard.Standard = (
        knative.Knative() if mode == "knative" else standard.Standard()
    )
    with cluster(model) as server:
        pods = Pods(house, server, model, candidate)
        model.ready_after = pods.ready_after
        over = threading.Event()

        def run() -> None:
            while not over.wait(0.05):
                with suppress(ServingError):  # a pod that is not ready now: a cluster tries again too
                    pods.follow()

        thread = threading.Thread(target=run)
        thread.start()
        kind: type[Knative | Standard] = Knative if mode == "knative" else Standard
        target = kind(config(timeout_s=10), client(server))
        try:
            yield replace(house, target=target, stable=FIRST), pods  # type: ignore[arg-type]
        finally:
            over.set()
            thread.join()
            house.target.rollback()


@pytest.mark.parametrize("mode", ["knative", "standard"])
def test_a_good_candidate_reaches_every_caller(
    house: Rig, bundle: ServedBundle, tmp_path: Path, mode: str
) -> None:
    with on_cluster(house, mode, altered(bundle, tmp_path)) as (there, pods):
        drill = drilled(there, tmp_path, plan(stages=STAGES, rules=RULES), SECOND)
        assert drill.rollout.phase == "promoted", drill.rollout.outcome
        assert drill.callers.failed == 0, drill.callers.failures[:3]
        assert set(drill.callers.versions) == {"0123456789ab", VERSION}
        shares = [traffic.get(SECOND.archive, 0) for traffic in pods.model.traffic]
        assert [share for n, share in enumerate(shares) if n == 0 or share != shares[n - 1]] == [
            0, 20, 50, 100,
        ]  # fmt: skip
        assert house.supervisor.gateway.split().weight == 100


@pytest.mark.parametrize("mode", ["knative", "standard"])
def test_a_candidate_that_fails_is_taken_back(
    house: Rig, bundle: ServedBundle, tmp_path: Path, mode: str
) -> None:
    # not the questions for readiness, or it would be taken back as not ready
    fails = (
        '        if request.user_ids[0] != "u_" + "0" * 32 and __import__("random").random() < 0.3:\n'
        "            return protocols.refuse(BROKEN)\n"
    )
    candidate = altered(bundle, tmp_path, {"handlers/predictor.py": [(ANSWERED, ANSWERED + fails)]})
    with on_cluster(house, mode, candidate) as (there, pods):
        drill = drilled(there, tmp_path, plan(stages=STAGES, rules=RULES), SECOND)
        assert drill.rollout.phase == "rolled_back"
        assert "error_rate" in drill.rollout.outcome
        assert drill.callers.versions[VERSION] > 0
        assert drill.callers.failed == 0, drill.callers.failures[:3]
        state = there.target.observe()
        assert (state.canary, state.stable, state.weight) == (None, FIRST.sha256, 0)
        assert pods.model.traffic[-1].get(SECOND.archive, 0) == 0

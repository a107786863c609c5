"""Whole rollouts under load, in both modes: an autoscaler has sized stable, and pods take time to start."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_kube_rollouts import Trial

from rollout.targets.kserve.knative import Knative
from rollout.targets.kserve.marks import REPLICAS
from rollout.targets.kserve.revision_pods import BEFORE, MIN_SCALE
from rollout.targets.kserve.standard import Standard
from support.file_target import memory_folder, store_in
from support.kube import knative, standard
from support.kube.cluster import FIRST, SECOND, client, cluster, config, service
from support.kube.load import Load

STAGES = [{"weight": weight, "max_s": 60, "min_requests": 10} for weight in (0, 1, 25, 50, 100)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as made:
        yield made


@contextmanager
def under_load(folder: Path, mode: str, load: Load, most: int = 20, **settings: Any) -> Iterator[Trial]:
    """Eight pods of stable by load, where minReplicas is two."""
    content = service(mode.title())
    content["spec"]["predictor"] |= {"minReplicas": 2, "maxReplicas": most}
    model = knative.Knative(load=load) if mode == "knative" else standard.Standard(load=load)
    kind: type[Knative | Standard] = Knative if mode == "knative" else Standard
    with cluster(model, content) as server:
        server.settle(60)
        load.overloaded.clear()  # the autoscaler had to find out first
        target = kind(config(timeout_s=1), client(server))
        yield Trial(folder, server, model, target, {"stages": STAGES, **settings})


@pytest.fixture(params=["knative", "standard"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def actions(trial: Trial, id: str) -> list[str]:
    return [event.action for event in store_in(trial.folder, trial.plan).history(id)]


@pytest.mark.parametrize(("errors", "phase"), [("{}", "promoted"), ('{"50": 3}', "rolled_back")])
@pytest.mark.parametrize("most", [10, 20])
def test_there_are_always_enough_pods_for_the_traffic_on_the_way_there_and_back(
    folder: Path, mode: str, errors: str, phase: str, most: int
) -> None:
    (folder / "errors.json").write_text(errors)
    load = Load(units=5.6)
    with under_load(folder, mode, load, most) as trial:
        done = trial.run()
        assert done.phase == phase, done.outcome
        trial.server.settle(100)
        assert load.overloaded == []
        assert getattr(trial.model, "unserved", 0) == 0
        assert trial.target.observe().stable == (SECOND if phase == "promoted" else FIRST).sha256
        assert "unreachable" not in actions(trial, done.id)


def test_customers_who_come_meanwhile_are_carried_too(folder: Path, mode: str) -> None:
    """A fifth more of them while the canary has a quarter."""
    load = Load(units=5.6)
    with under_load(folder, mode, load) as trial:
        controller, id = trial.controller(), trial.start()
        for _ in range(300):
            rollout = controller.tick(id)
            if trial.seen[-1] == 25:
                load.units = 6.7
                trial.server.settle(5)
            if rollout.over:
                break
            trial.server.settle(10)
        assert rollout.phase == "promoted", rollout.outcome
        assert load.overloaded == []


def test_pods_that_never_start_end_the_rollout_and_are_not_called_out_of_reach(
    folder: Path, mode: str
) -> None:
    """A quarter is carried by the two pods that a Knative canary has from the beginning; in Standard mode it
    has one, and needs two for any share."""
    fits, too_much = (25, 50) if mode == "knative" else (0, 1)
    with under_load(folder, mode, Load(units=5.6), ready_timeout_s=3, reach_timeout_s=60) as trial:
        trial.model.starts_in = 10**6
        done = trial.run()
        assert done.phase == "rolled_back"
        assert re.match(
            rf"{too_much} % could not be set within \d+ s: churn: pods of the canary", done.outcome
        )
        assert "unreachable" not in actions(trial, done.id)
        assert max(trial.seen) == fits
        assert trial.target.observe().canary is None


@pytest.mark.parametrize(("errors", "phase"), [("{}", "promoted"), ('{"50": 3}', "rolled_back")])
def test_a_revision_s_minimum_is_put_back_when_the_rollout_is_over(
    folder: Path, errors: str, phase: str
) -> None:
    (folder / "errors.json").write_text(errors)
    load = Load(units=5.6)
    with under_load(folder, "knative", load) as trial:
        assert trial.run().phase == phase
        trial.server.settle(20)
        status = trial.target._read()["status"]["components"]["predictor"]  # type: ignore[union-attr]
        for revision in {status["latestCreatedRevision"], status["latestRolledoutRevision"]}:
            found = trial.server.store.get(*knative.AUTOSCALER, "churn", revision)
            assert found is not None
            annotations = found["metadata"]["annotations"]
            assert annotations[MIN_SCALE] == "2" and not {BEFORE, REPLICAS} & set(annotations)
        trial.server.settle(100)
        load.units = 0.7
        trial.server.settle(100)
        serving = trial.server.store.get(*knative.REVISION, "churn", status["latestRolledoutRevision"])
        assert serving is not None and serving["status"]["actualReplicas"] == 2
        assert load.overloaded == []

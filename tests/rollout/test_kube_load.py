"""Whole rollouts in Standard mode under load: an autoscaler has sized stable, and pods take time to start."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from file_target import memory_folder, store_in
from kube import standard
from kube.cluster import FIRST, SECOND, client, cluster, config, service
from kube.load import Load
from test_kube_rollouts import Trial

from rollout.targets.standard import Standard

STAGES = [{"weight": weight, "max_s": 60, "min_requests": 10} for weight in (0, 1, 25, 50, 100)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as made:
        yield made


@contextmanager
def under_load(folder: Path, load: Load, most: int = 20, **settings: Any) -> Iterator[Trial]:
    """Eight pods of stable by load, where minReplicas says two."""
    content = service("Standard")
    content["spec"]["predictor"] |= {"minReplicas": 2, "maxReplicas": most}
    model = standard.Standard(load=load)
    with cluster(model, content) as server:
        server.settle(60)
        target = Standard(config(timeout_s=1), client(server))
        yield Trial(folder, server, model, target, {"stages": STAGES, **settings})


def actions(trial: Trial, id: str) -> list[str]:
    return [event.action for event in store_in(trial.folder, trial.plan).history(id)]


@pytest.mark.parametrize(("errors", "phase"), [("{}", "promoted"), ('{"50": 3}', "rolled_back")])
@pytest.mark.parametrize("most", [10, 20])
def test_nobody_is_sent_to_pods_that_cannot_carry_it_on_the_way_there_and_back(
    folder: Path, errors: str, phase: str, most: int
) -> None:
    (folder / "errors.json").write_text(errors)
    load = Load(units=5.6)
    with under_load(folder, load, most) as trial:
        done = trial.run()
        assert done.phase == phase, done.outcome
        trial.server.settle(100)
        assert load.overloaded == []
        assert trial.model.unserved == 0  # type: ignore[union-attr]
        assert trial.target.observe().stable == (SECOND if phase == "promoted" else FIRST).sha256
        assert "unreachable" not in actions(trial, done.id)


def test_customers_who_come_meanwhile_are_carried_too(folder: Path) -> None:
    """A fifth more of them while the canary has a quarter."""
    load = Load(units=5.6)
    with under_load(folder, load) as trial:
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


def test_pods_that_never_start_end_the_rollout_and_are_not_called_out_of_reach(folder: Path) -> None:
    with under_load(folder, Load(units=5.6), ready_timeout_s=3, reach_timeout_s=60) as trial:
        trial.model.starts_in = 10**6  # type: ignore[union-attr]
        done = trial.run()
        assert done.phase == "rolled_back"
        assert done.outcome.startswith("25 % could not be set within 3 s: churn: pods of the canary")
        assert "unreachable" not in actions(trial, done.id)
        assert max(trial.seen) == 1
        assert trial.target.observe().canary is None

"""A GitOps tool puts the storageUri of Git back and leaves our annotations: what is loaded is what counts."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from test_kube_rollouts import Trial, opened

from rollout.reconcile import differs
from rollout.targets.kserve.knative import Knative
from rollout.targets.kserve.standard import Standard
from support.file_target import memory_folder, now, plan, store_in
from support.kube import knative, standard
from support.kube.api_server import ApiServer
from support.kube.cluster import FIRST, SECOND, client, cluster, config, found

MODES = {"knative": (knative.Knative, Knative), "standard": (standard.Standard, Standard)}


@pytest.fixture(params=["knative", "standard"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as made:
        yield made


def heal(server: ApiServer, git: dict[str, object]) -> None:
    """As Argo CD's self-heal without `ignoreDifferences`: every field that Git names is as in Git again."""
    content = copy.deepcopy(found(server))
    content["spec"]["predictor"]["model"]["storageUri"] = git["storageUri"]
    if "name" in git:
        content["spec"]["predictor"]["name"] = git["name"]
    server.store.put("serving.kserve.io", "inferenceservices", content)
    server.settle()


def in_git(server: ApiServer) -> dict[str, object]:
    part = found(server)["spec"]["predictor"]
    return {"storageUri": part["model"]["storageUri"]} | ({"name": part["name"]} if "name" in part else {})


def test_an_old_model_under_the_candidates_marks_is_not_taken_for_the_candidate(mode: str) -> None:
    model, target_of = MODES[mode]
    with cluster(model()) as server:
        git, target = in_git(server), target_of(config(), client(server))
        target.deploy(SECOND)
        target._cluster.wait(lambda: target.observe().detail or None, 5, "ready")
        target.promote(SECOND)
        assert target.observe().stable == SECOND.sha256
        assert target.serving() == SECOND
        heal(server, git)
        marks = found(server)["spec"]["predictor"]["annotations"]
        assert marks["churn.rollout/sha256"] == SECOND.sha256, "the tool has left them"
        assert target.observe().stable == FIRST.sha256
        assert target.serving() == FIRST
        assert f"serves {FIRST.sha256[:12]}" in differs(SECOND, target.observe())
        # the remedy that is named
        target.restore(SECOND)
        assert target.observe().stable == SECOND.sha256 and differs(SECOND, target.observe()) == ""


@pytest.mark.parametrize("at", [50, 100])
def test_a_rollout_under_which_git_is_put_back_ends_as_taken_back(folder: Path, mode: str, at: int) -> None:
    """In Knative mode the canary becomes another one; in Standard mode only stable is Git's, and is touched
    after promotion."""
    with ExitStack() as stack:
        trial: Trial = opened(stack, folder, mode)
        trial.settings["watch_s"] = 30
        git = in_git(trial.server)
        id, controller = trial.start(), trial.controller()
        watching = mode == "standard" or at == 100
        for _ in range(200):
            rollout = controller.tick(id)
            reached = rollout.phase == "watching" if watching else trial.seen[-1] == at
            if reached and not rollout.pending:
                break
        heal(trial.server, git)
        for _ in range(200):
            rollout = controller.tick(id)
            if rollout.over:
                break
        assert rollout.phase == "rolled_back", rollout
        assert trial.target.observe().stable == FIRST.sha256
        assert store_in(folder, plan()).stable("churn") == FIRST
        assert now() >= rollout.started

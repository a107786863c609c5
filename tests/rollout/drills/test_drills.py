"""Faulty canaries among real customers: each is taken back for the right reason, and no client gets an error.

One Envoy and one stable TorchServe for all drills; each brings a canary of its own, made of a real archive
whose handler was changed. Clients count every single answer.
"""

import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from handlers.identity import mask
from rollout.state import Rollout
from support.served_bundle import FRESH, KEY, NOW, ServedBundle

from support.drills.faults import (  # isort: skip
    FAILS,
    KILLED,
    MISCALIBRATED,
    NEVER_READY,
    REFUSES_TO_LOAD,
    SHIFTED,
    SLOW,
    STALE,
    label_table,
    outcomes_by,
    scores_of,
)
from support.drills.rig import HORIZON, VERSION, Rig, altered, drilled, plan, running_rig  # isort: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def rig(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running_rig(bundle, tmp_path_factory.mktemp("drills")) as made:
        yield made


def taken_back(rig: Rig) -> None:
    """No canary is left, and stable is what it was."""
    state = rig.target.observe()
    assert (state.weight, state.mirror, state.canary, state.stable) == (0, False, None, rig.stable.sha256)


def test_a_canary_that_fails_two_percent(rig: Rig, bundle: ServedBundle, tmp_path: Path) -> None:
    candidate = altered(bundle, tmp_path, FAILS)
    # not in a shadow, which does no harm: every second customer is the canary's
    stages = [
        {"weight": 50, "min_s": 3, "max_s": 300, "min_requests": 4000},
        {"weight": 100, "max_s": 300},
    ]
    drill = drilled(rig, tmp_path, plan(stages=stages), candidate)
    assert drill.rollout.phase == "rolled_back"
    assert "error_rate" in drill.rollout.outcome
    assert drill.clients.versions[VERSION] > 0
    assert drill.clients.failed == 0, "stable answered in the canary's place"
    taken_back(rig)


def test_a_canary_that_is_three_times_slower(rig: Rig, bundle: ServedBundle, tmp_path: Path) -> None:
    candidate = altered(bundle, tmp_path, SLOW)
    # its worker stops for 1.5 s every two: a minute of shadow separates that from a busy machine
    stages = [{"weight": 0, "mirror": True, "min_s": 60, "max_s": 120}, {"weight": 100, "max_s": 60}]
    drill = drilled(rig, tmp_path, plan(stages=stages, block_s=2), candidate)
    assert drill.rollout.phase == "rolled_back"
    assert "latency" in drill.rollout.outcome
    assert drill.clients.failed == 0
    taken_back(rig)


def test_a_canary_that_scores_otherwise(rig: Rig, bundle: ServedBundle, tmp_path: Path) -> None:
    candidate = altered(bundle, tmp_path, SHIFTED)
    drill = drilled(rig, tmp_path, plan(rules={"decision_rate": None, "latency": None}), candidate)
    assert drill.rollout.phase == "rolled_back"
    assert "score_shift" in drill.rollout.outcome
    assert drill.weights == [0], "found in the shadow: no client got such a score"
    assert set(drill.clients.versions) == {"0123456789ab"}
    assert drill.clients.failed == 0
    taken_back(rig)


def test_a_canary_that_reads_stale_features(rig: Rig, bundle: ServedBundle, tmp_path: Path) -> None:
    candidate = altered(bundle, tmp_path, STALE)
    drill = drilled(rig, tmp_path, plan(), candidate)
    assert drill.rollout.phase == "rolled_back"
    assert "features" in drill.rollout.outcome
    assert "stale" in drill.rollout.outcome
    assert drill.clients.failed == 0
    taken_back(rig)


def test_a_canary_that_is_miscalibrated(rig: Rig, bundle: ServedBundle, tmp_path: Path) -> None:
    """Scores with the right order and the wrong level; outcomes arrive during the rollout."""
    candidate = altered(bundle, tmp_path, MISCALIBRATED)
    labels = tmp_path / "labels.parquet"
    users = [mask(str(user), KEY) for user in FRESH]
    known = label_table(users, NOW + timedelta(minutes=5) + HORIZON, outcomes_by(scores_of(rig.url)))
    known.to_parquet(labels)
    rules = {"score_shift": None, "decision_rate": None, "latency": None}
    config = plan(rules=rules, labels=str(labels), segments=[])
    drill = drilled(rig, tmp_path, config, candidate, labels=labels)
    assert drill.rollout.phase == "rolled_back"
    assert "outcomes" in drill.rollout.outcome
    assert drill.clients.failed == 0
    taken_back(rig)


def test_a_canary_that_dies(rig: Rig, bundle: ServedBundle, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(rollout: Rollout) -> None:
        server = rig.supervisor.canary.server
        if rollout.phase == "stage" and rollout.stage == 3 and not killed and server is not None:
            os.kill(server.pid, signal.SIGKILL)
            killed.append(server.pid)

    drill = drilled(rig, tmp_path, plan(), altered(bundle, tmp_path, KILLED), kill)
    assert killed, drill.rollout.outcome
    assert drill.rollout.phase == "rolled_back"
    assert "canary" in drill.rollout.outcome or "error_rate" in drill.rollout.outcome
    assert drill.clients.versions[VERSION] > 0
    assert drill.clients.failed == 0, "its customers were answered by stable"
    taken_back(rig)


def test_a_canary_that_never_gets_ready(rig: Rig, bundle: ServedBundle, tmp_path: Path) -> None:
    candidate = altered(bundle, tmp_path, NEVER_READY)
    drill = drilled(rig, tmp_path, plan(ready_timeout_s=15), candidate)
    assert drill.rollout.phase == "rolled_back"
    assert "not ready within 15 s" in drill.rollout.outcome
    assert drill.weights == []
    assert set(drill.clients.versions) == {"0123456789ab"}
    assert drill.clients.failed == 0
    taken_back(rig)


def test_a_canary_that_refuses_to_load(rig: Rig, bundle: ServedBundle, tmp_path: Path) -> None:
    candidate = altered(bundle, tmp_path, REFUSES_TO_LOAD)
    drill = drilled(rig, tmp_path, plan(ready_timeout_s=40), candidate)
    assert drill.rollout.phase == "rolled_back"
    assert "not ready within 40 s" in drill.rollout.outcome
    assert drill.clients.failed == 0
    taken_back(rig)


def test_an_identical_model_reaches_all_customers(rig: Rig, bundle: ServedBundle, tmp_path: Path) -> None:
    """Last: it stays."""
    candidate = altered(bundle, tmp_path)
    drill = drilled(rig, tmp_path, plan(), candidate)
    assert drill.rollout.phase == "promoted", drill.rollout.outcome
    assert drill.weights == [0, 5, 25, 50, 100, 100]
    assert drill.champions == [VERSION]
    assert drill.clients.failed == 0
    state = rig.target.observe()
    assert (state.weight, state.canary, state.stable) == (0, None, candidate.sha256)
    assert rig.supervisor.model.alive
    # and back again, in one step
    rig.target.restore(rig.stable)
    assert rig.target.observe().stable == rig.stable.sha256

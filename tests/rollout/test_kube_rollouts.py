"""Whole rollouts by the real controller on a cluster, in both modes of KServe."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rollout.config import RolloutConfig
from rollout.controller import Controller
from rollout.state import Change, Rollout
from rollout.targets.kserve.knative import Knative
from rollout.targets.kserve.standard import Standard
from support.file_target import FileObserver, FileRegistry, controller, memory_folder, now, plan, store_in
from support.kube import knative, standard
from support.kube.api_server import ApiServer
from support.kube.cluster import FIRST, SECOND, client, cluster, config
from support.waits import within


class Died(BaseException):
    """As kill -9: nothing of the controller runs after it."""


@dataclass
class Trial:
    folder: Path
    server: ApiServer
    model: knative.Knative | standard.Standard
    target: Knative | Standard
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def plan(self) -> RolloutConfig:
        patient = {
            "lease_s": 30,
            "tick_s": 0.01,
            "watch_s": 0.2,
            "ready_timeout_s": 10,
            "reach_timeout_s": 10,
        }
        return plan(**(patient | self.settings))

    def controller(self, **more: Any) -> Controller:
        return controller(self.folder, self.plan, target=self.target, **more)

    def start(self) -> str:
        store = store_in(self.folder, self.plan)
        return store.start("churn", Change(SECOND, FIRST, "ada", now(), "march"), self.plan).id

    def run(self) -> Rollout:
        return self.controller().run(self.start())

    def actions(self, rollout: Rollout) -> list[str]:
        return [event.action for event in store_in(self.folder, self.plan).history(rollout.id)]

    @property
    def seen(self) -> list[int]:
        """The candidate's share of the customers, whenever it changed."""
        shares: list[int] = []
        for traffic in self.model.traffic:
            share = traffic.get(SECOND.archive, 0)
            if not shares or shares[-1] != share:
                shares.append(share)
        return shares


def opened(stack: ExitStack, folder: Path, mode: str, **how: Any) -> Trial:
    """`how`: of the controller's model."""
    model = knative.Knative(**how) if mode == "knative" else standard.Standard(**how)
    server = stack.enter_context(cluster(model))
    kind: type[Knative | Standard] = Knative if mode == "knative" else Standard
    return Trial(folder, server, model, kind(config(timeout_s=2), client(server)))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as made:
        yield made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened_ones:
        yield opened_ones


@pytest.fixture(params=["knative", "standard"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_good_candidate_reaches_all_customers(stack: ExitStack, folder: Path, mode: str) -> None:
    trial = opened(stack, folder, mode)
    done = trial.run()
    assert done.phase == "promoted", done.outcome
    assert trial.seen == [0, 5, 50, 100]
    assert trial.actions(done) == [
        "start", "deploy", "advance", "advance", "advance", "advance", "promote", "watch", "finish",
    ]  # fmt: skip
    assert trial.target.observe().stable == SECOND.sha256
    assert FileRegistry(folder).champions() == [SECOND.sha256]


def test_a_bad_candidate_is_taken_back(stack: ExitStack, folder: Path, mode: str) -> None:
    trial = opened(stack, folder, mode)
    (folder / "errors.json").write_text('{"50": 3}')
    done = trial.run()
    assert (done.phase, done.outcome) == ("rolled_back", "any_error: 3 errors")
    assert trial.seen == [0, 5, 50, 0]
    state = trial.target.observe()
    assert (state.canary, state.stable, state.weight) == (None, FIRST.sha256, 0)


def test_one_that_turns_bad_when_it_has_all_customers(stack: ExitStack, folder: Path, mode: str) -> None:
    trial = opened(stack, folder, mode)
    (folder / "errors.json").write_text('{"watch": 1}')
    done = trial.run()
    assert done.phase == "rolled_back"
    assert trial.seen == [0, 5, 50, 100, 0]
    assert trial.target.observe().stable == FIRST.sha256
    assert FileRegistry(folder).champions() == [SECOND.sha256, FIRST.sha256]


def test_conflicts_on_every_write(stack: ExitStack, folder: Path, mode: str) -> None:
    trial = opened(stack, folder, mode)
    trial.server.conflict_first = True
    done = trial.run()
    assert done.phase == "promoted", done.outcome
    assert trial.seen == [0, 5, 50, 100]
    assert any(call.code == 409 for call in trial.server.calls)


def away(trial: Trial, seconds: float) -> Callable[[str], None]:
    """The API server stops as soon as 5 % of the customers have the candidate, and starts again."""
    back = threading.Timer(seconds, lambda: setattr(trial.server, "down", False))

    def go(point: str) -> None:
        if point == "weight_confirmed" and trial.seen[-1] == 5:
            trial.server.down = True
            back.start()

    return go


def test_an_api_server_that_is_away_for_a_while(stack: ExitStack, folder: Path, mode: str) -> None:
    """A minute, shortened as the plan's own times are: the weight stays, then the rollout continues."""
    trial = opened(stack, folder, mode)
    done = trial.controller(faults=away(trial, 1)).run(trial.start())
    assert done.phase == "promoted", done.outcome
    assert trial.seen == [0, 5, 50, 100]
    actions = trial.actions(done)
    assert actions[4:6] == ["unreachable", "reachable"], actions


def test_an_api_server_that_is_away_for_too_long(stack: ExitStack, folder: Path, mode: str) -> None:
    trial = opened(stack, folder, mode)
    trial.settings["reach_timeout_s"] = 0.5
    done = trial.controller(faults=away(trial, 1.5)).run(trial.start())
    assert done.phase == "rolled_back"
    assert "out of reach" in done.outcome
    assert trial.seen == [0, 5, 0]
    assert trial.target.observe().stable == FIRST.sha256


def test_a_canary_that_never_is_ready(stack: ExitStack, folder: Path, mode: str) -> None:
    trial = opened(stack, folder, mode, ready_after=lambda uri: None if uri == SECOND.archive else 2)
    trial.settings["ready_timeout_s"] = 1
    done = trial.run()
    assert done.phase == "rolled_back"
    assert "the canary was not ready within 1 s" in done.outcome
    assert trial.seen == [0]
    assert trial.target.observe().canary is None


def test_a_canary_whose_readiness_flaps(stack: ExitStack, folder: Path, mode: str) -> None:
    """It ends, whatever the result is, and the canary never gets more than was decided."""
    trial = opened(stack, folder, mode)
    trial.settings["reach_timeout_s"] = 2

    def flap() -> None:
        within(60, lambda: trial.seen[-1] == 5)
        trial.model.flapping.add(SECOND.archive)

    thread = threading.Thread(target=flap, daemon=True)
    thread.start()
    done = trial.run()
    thread.join()
    trial.server.settle()
    assert done.phase in ("promoted", "rolled_back")
    state = trial.target.observe()
    assert state.stable == (SECOND if done.phase == "promoted" else FIRST).sha256
    decided = [event.weight for event in store_in(folder, trial.plan).history(done.id)]
    assert max(trial.seen) <= max(decided)


def test_a_release_that_routes_nothing(stack: ExitStack, folder: Path) -> None:
    trial = opened(stack, folder, "standard", release="0.20")
    trial.settings["reach_timeout_s"] = 1
    done = trial.run()
    assert done.phase == "rolled_back"
    reasons = [event.reason for event in store_in(folder, trial.plan).history(done.id)]
    assert any("KServe 0.20 starts canaries and routes nothing" in reason for reason in reasons)
    assert trial.seen == [0]


POINTS = ("deploy_intended", "deploy_acted", "weight_intended", "weight_acted")
FORWARD = ("promote_intended", "promote_acted", "promote_registered")
BACK = ("back_acted", "back_recorded")


@pytest.mark.parametrize(
    ("point", "errors"), [(p, "") for p in POINTS + FORWARD] + [(p, '{"50": 3}') for p in POINTS + BACK]
)
def test_a_controller_that_dies_is_followed_by_one_that_continues(
    stack: ExitStack, folder: Path, mode: str, point: str, errors: str
) -> None:
    trial = opened(stack, folder, mode)
    trial.settings["lease_s"] = 0.5
    if errors:
        (folder / "errors.json").write_text(errors)

    def die(reached: str) -> None:
        if reached == point:
            raise Died

    id = trial.start()
    with pytest.raises(Died):
        trial.controller(faults=die).run(id)
    done = trial.controller().run(id)
    assert done.phase == ("rolled_back" if errors else "promoted"), done.outcome
    assert trial.target.observe().stable == (FIRST if errors else SECOND).sha256
    assert trial.seen == ([0, 5, 50, 0] if errors else [0, 5, 50, 100])


def test_what_the_observer_sees_is_a_dark_launch_first(stack: ExitStack, folder: Path, mode: str) -> None:
    """The plan's shadow stage: ready at weight 0, no mirroring, and no evidence is waited for."""
    trial = opened(stack, folder, mode)
    stages = [{"weight": 0, "mirror": True, "max_s": 60, "min_requests": 10**9}]
    stages += [{"weight": 100, "max_s": 60, "min_requests": 10}]
    trial.settings["stages"] = stages
    assert FileObserver(folder).mark()
    done = trial.run()
    assert done.phase == "promoted", done.outcome
    assert trial.seen == [0, 100]

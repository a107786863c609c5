"""A run of retraining is killed or paused at a step, with real processes; another process finishes it."""

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from pipelines.retraining.steps import RUN_STEPS
from retraining.decision import Action, Evidence, Labels, Outcome, State
from retraining.ledger import Run
from support.retraining_runs import Shop, finished

STEPS = [*(step.name for step in RUN_STEPS), "rollout"]
POINTS = [(name, what) for name in STEPS for what in ("began", "ended")]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def reference(shop: Shop) -> Run:
    """A run that nothing interrupts."""
    finished(shop.force())
    run = shop.ledger.runs(shop.model)[-1]
    assert run.outcome is Outcome.ROLLED_OUT and run.candidate is not None
    shop.end_rollout()
    return run


@pytest.fixture(autouse=True)
def _no_rollout_remains(shop: Shop) -> Iterator[None]:
    yield
    shop.end_rollout()


def test_a_run_trains_on_the_new_data_and_changes_no_file_of_the_model_that_serves(
    shop: Shop, reference: Run
) -> None:
    files = shop.settings.files
    stable = shop.ledger.state(shop.model, "", None)
    assert reference.rollout in shop.rollouts() and stable.attempts[-1].outcome is Outcome.ROLLED_OUT
    assert not (files.training / "metrics.json").stat().st_mtime > reference.started.timestamp()
    remains = {path.name for path in (files.retraining / reference.id / "1").iterdir()}
    assert remains == {"gates", "training-window.json", "tuned.json", "newest.json", "steps.json"}
    assert main_code(shop, "ledger", "--verify") == 0


def main_code(shop: Shop, *command: str) -> int:
    from churn.cli import main

    return main(["retrain", *command, *shop.flags])


@pytest.mark.slow
@pytest.mark.parametrize(("step", "what"), POINTS)
def test_killed_in_or_after_a_step(shop: Shop, reference: Run, step: str, what: str) -> None:
    before = shop.rollouts()
    process = shop.force()
    run = shop.until(step, what, process)
    process.kill()
    process.communicate()
    complete = {event.step for event in shop.ledger.steps(run.id) if event.what == "ended"}
    _resume(shop)
    after = shop.run_of(run.id)
    assert after.outcome is Outcome.ROLLED_OUT and after.candidate is not None
    assert reference.candidate is not None and after.candidate.version == reference.candidate.version
    began = [event.step for event in shop.ledger.steps(run.id) if event.what == "began"]
    for done in complete:
        assert began.count(done) == 1, f"{done} was complete and began again"
    assert [event.what for event in shop.ledger.steps(run.id) if event.step == "train"].count("ended") <= 1
    assert shop.rollouts()[:1] == [after.rollout] and len(shop.rollouts()) == len(before) + 1


@pytest.mark.slow
@pytest.mark.parametrize("step", ["train", "rollout"])
def test_a_runner_that_was_paused_past_its_lease_is_refused(shop: Shop, reference: Run, step: str) -> None:
    before = shop.rollouts()
    paused = shop.force()
    run = shop.until(step, "began", paused)
    os.kill(paused.pid, signal.SIGSTOP)
    try:
        _resume(shop)
        after = shop.run_of(run.id)
        assert after.outcome is Outcome.ROLLED_OUT
    finally:
        os.kill(paused.pid, signal.SIGCONT)
    said = finished(paused, (1,))
    assert "is no longer the newest of churn: another process has taken the run over" in said
    assert len(shop.rollouts()) == len(before) + 1
    assert shop.run_of(run.id) == after, "the paused process changed the run"


@pytest.mark.slow
def test_a_second_process_leaves_a_run_alone_that_has_its_lease(shop: Shop, reference: Run) -> None:
    process = shop.force()
    shop.until("training set", "began", process)
    output = finished(shop.start())
    assert "runs a retraining; wait for its end" in output or "No run" in output
    finished(process)
    assert len(shop.ledger.runs(shop.model)) == len({run.decision for run in shop.ledger.runs(shop.model)})


def test_a_decision_is_graded_when_its_labels_have_matured(
    shop: Shop, reference: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first model against one that would have been trained at the decision."""
    first = shop.ledger.entries(shop.model)[0].state["version"]
    then = datetime(2024, 11, 15, tzinfo=UTC)
    state = State(first, then - timedelta(days=14), ())
    labels = Labels(1000, 0, then)
    found = shop.ledger.decide(shop.settings.retrain, state, Evidence(shop.model, (), labels), then, "test")
    assert found.decision.action is Action.NO
    assert main_code(shop, "ledger", "--grade", "--as-of", "2025-01-01", "--json") == 0
    assert found.number not in shop.ledger.grades(shop.model), "the horizon of its customers has not passed"
    for _ in range(2):
        assert main_code(shop, "ledger", "--grade", "--as-of", "2025-02-10", "--json") == 0
    grade = shop.ledger.grades(shop.model)[found.number]
    assert grade.grade in ("right", "wrong") and grade.numbers["rows"] > 100
    assert (grade.grade == "wrong") is (grade.numbers["gain_nats_low"] > 0)
    assert "a model trained then would have gained" in grade.reason
    assert reference.decision not in shop.ledger.grades(shop.model), "its labels come later"


def _resume(shop: Shop) -> None:
    """As cron would: again and again until the lease of the killed process has expired."""
    for _ in range(20):
        output = finished(shop.start("resume"), (0, 1))
        if "rolled out" in output or "No run is open" in output:
            return
        assert "runs a retraining; wait for its end" in output, output
    raise AssertionError("the run was not continued")

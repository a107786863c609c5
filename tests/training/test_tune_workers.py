"""Several workers and sudden deaths, with real processes on real rows."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import optuna
import pandas as pd
import psutil
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import OperationalError

from churn.settings import CONFIGS, Settings, load_settings
from core.errors import TrainingError
from support.fits import fit_settings
from support.waits import within
from training.config import TuningConfig
from training.tuning.slots import FINISHED, claim, open_storage, refill_queue
from training.tuning.study import open_study
from training.tuning.tune import tune

CODE = """
import sys
import pandas as pd
from churn.settings import load_settings
from training.learn.resolved import FitSettings
from training.tuning.tune import tune

s = load_settings(overrides=sys.argv[1:])
rows = pd.read_parquet(s.files.training_set)
say = lambda message: print(message, flush=True)
tune(rows, FitSettings("transactions", s.features, s.model, s.training), s.tuning, s.files, say)
"""


@pytest.fixture
def overrides(rows: pd.DataFrame, tmp_path: Path) -> list[str]:
    rows[rows["user_id"] < "u_8"].to_parquet(tmp_path / "training-set.parquet", index=False)
    return [
        f"workspace={tmp_path}",
        "training.epochs=12",
        "training.batch_size=128",
        "model.hidden=[64]",
        "tuning.study=s",
        "tuning.heartbeat_s=1",
        "tuning.grace_s=3",
    ]


@pytest.fixture
def start(overrides: list[str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a study in a process of its own, as the command line does."""
    started = []

    def begin(*more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, *overrides, *more],
            cwd=CONFIGS.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        for child in psutil.Process(process.pid).children() if process.poll() is None else []:
            child.kill()  # a stopped one does not end with its parent
        process.kill()
        process.communicate()


def settings_of(overrides: list[str], *more: str) -> Settings:
    return load_settings(overrides=[*overrides, *more])


def opened(process: subprocess.Popen[str], tuning: TuningConfig) -> optuna.Study:
    """The study, after the first output of its process: one process alone must create the tables."""
    assert process.stdout is not None
    assert process.stdout.readline(), process.stderr.read() if process.stderr else ""
    return optuna.load_study(study_name=None, storage=open_storage(tuning))


def running(study: optuna.Study) -> list[FrozenTrial]:
    """Trials under way that have drawn their points."""
    return [t for t in study.get_trials(states=(TrialState.RUNNING,)) if len(t.params) == 3]


def done(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(states=FINISHED)


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(process.pid).children()
        if "training.tuning.worker" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE
    ]


def stopped_within_a_trial(process: subprocess.Popen[str], tuning: TuningConfig) -> psutil.Process:
    """One of two workers, stopped where each of both has a trial under way."""
    victim = workers_of(process)[0]
    # If it was stopped during a write, the database is locked until it continues. A reader that waits for a
    # minute, as the workers do, keeps it stopped for longer than the grace time of its trial.
    impatient = optuna.storages.RDBStorage(tuning.storage, {"connect_args": {"timeout": 0.2}})
    study = optuna.load_study(study_name=None, storage=impatient)

    def in_a_trial() -> bool:
        if len(running(study)) != 2:
            return False
        victim.suspend()
        with suppress(OperationalError, StorageInternalError):
            if len(running(study)) == 2:
                return True
        victim.resume()
        return False

    within(180, in_a_trial, ignored=(OperationalError, StorageInternalError))
    return victim


def gone(processes: list[psutil.Process]) -> bool:
    return all(not p.is_running() or p.status() == psutil.STATUS_ZOMBIE for p in processes)


@pytest.mark.slow
def test_a_killed_worker_loses_no_trial_and_the_number_is_exact(
    overrides: list[str], start: Callable[..., subprocess.Popen[str]]
) -> None:
    parent = start("tuning.workers=2", "tuning.trials=4", "tuning.grace_s=10")
    tuning = settings_of(overrides).tuning
    study = opened(parent, tuning)
    within(180, lambda: len(running(study)) == 2 and len(done(study)) >= 1)
    victim = stopped_within_a_trial(parent, tuning)
    os.kill(victim.pid, signal.SIGKILL)
    before = {trial.number: (trial.value, trial.params) for trial in done(study)}
    assert parent.wait(240) == 0, parent.stderr.read() if parent.stderr else ""

    trials = study.trials
    assert len(done(study)) == 4
    assert not any(trial.state in (TrialState.RUNNING, TrialState.WAITING) for trial in trials)
    for number, what in before.items():
        assert (trials[number].value, trials[number].params) == what
    lost = [trial for trial in trials if trial.state == TrialState.FAIL]
    again = [trial for trial in trials if "failed_trial" in trial.system_attrs]
    assert len(lost) == len(again) == 1
    assert again[0].system_attrs["failed_trial"] == lost[0].number
    assert again[0].state in FINISHED
    assert lost[0].params.items() <= again[0].params.items()


@pytest.mark.slow
def test_no_worker_outlives_a_killed_parent_and_the_study_continues(
    overrides: list[str], start: Callable[..., subprocess.Popen[str]]
) -> None:
    s = settings_of(overrides, "tuning.trials=3")
    parent = start("tuning.workers=2", "tuning.trials=5")
    study = opened(parent, s.tuning)
    within(180, lambda: len(running(study)) == 2)
    workers = workers_of(parent)
    parent.kill()
    parent.wait()
    within(30, lambda: gone(workers))

    held = {trial.number for trial in done(study)}
    waiting = [trial for trial in study.get_trials(states=(TrialState.WAITING,)) if trial.params]
    assert len(workers) == len(waiting) == 2  # given back at once, with their points
    rows = pd.read_parquet(s.files.training_set)
    found = tune(rows, fit_settings(s), s.tuning, s.files)
    after = {trial.number for trial in done(study)}
    assert found.trials == len(after) == 3
    assert held <= after


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_keeps_finished_trials_and_returns_the_others(
    overrides: list[str], start: Callable[..., subprocess.Popen[str]], workers: int
) -> None:
    parent = start(f"tuning.workers={workers}", "tuning.trials=40")
    study = opened(parent, settings_of(overrides).tuning)
    within(180, lambda: len(done(study)) >= 1 and len(running(study)) == workers)
    children = workers_of(parent)
    parent.send_signal(signal.SIGINT)
    _, output = parent.communicate(timeout=30)

    assert output.strip().splitlines()[-1].startswith("KeyboardInterrupt")
    assert gone(children)
    states = Counter(trial.state for trial in study.trials)
    assert states[TrialState.COMPLETE] >= 1
    assert states[TrialState.RUNNING] == 0
    assert sum(count for state, count in states.items() if state != TrialState.FAIL) == 40


def test_a_worker_s_reason_is_ours(overrides: list[str]) -> None:
    s = settings_of(overrides, "tuning.workers=2", "tuning.space={model.depth: {low: 1, high: 2}}")
    rows = pd.read_parquet(s.files.training_set)
    with pytest.raises(TrainingError, match=r"tuning\.space\.model\.depth: no such setting"):
        tune(rows, fit_settings(s), s.tuning, s.files)


@pytest.mark.slow
def test_workers_that_cannot_live_end_the_study(overrides: list[str], tmp_path: Path) -> None:
    s = settings_of(overrides, "tuning.workers=2")
    rows = pd.read_parquet(s.files.training_set)
    s.files.training_set.unlink()
    with pytest.raises(
        TrainingError, match=r"workers in a row ended with exit code 1 .*training-set\.parquet"
    ):
        tune(rows, fit_settings(s), s.tuning, s.files)


def test_a_slot_is_claimed_by_one_worker_and_none_beyond_the_wanted_number(tmp_path: Path) -> None:
    tuning = TuningConfig(storage=f"sqlite:///{tmp_path}/o.db", trials=30, space={})
    refill_queue(open_study(open_storage(tuning), "s"), 40)

    def take_all(_: int) -> list[int]:
        storage = open_storage(tuning)
        study = optuna.load_study(study_name="s", storage=storage)
        taken = []
        while (slot := claim(study, storage, 30)) is not None or _left(study):
            if slot is not None:
                taken.append(slot.number)
        return taken

    def _left(study: optuna.Study) -> bool:
        return sum(t.state == TrialState.RUNNING for t in study.get_trials(deepcopy=False)) < 30

    with ThreadPoolExecutor(4) as pool:
        taken = [number for numbers in pool.map(take_all, range(4)) for number in numbers]
    assert sorted(taken) == list(range(30))


def test_the_dead_are_noticed_even_before_their_first_heartbeat(tmp_path: Path) -> None:
    tuning = TuningConfig(storage=f"sqlite:///{tmp_path}/o.db", heartbeat_s=1, grace_s=1, space={})
    storage = open_storage(tuning)
    study = open_study(storage, "s")
    refill_queue(study, 2)
    assert claim(study, storage, 2) is not None  # and it sends no heartbeat
    time.sleep(3)
    refill_queue(study, 2)

    states = [trial.state for trial in study.trials]
    assert states == [TrialState.FAIL, TrialState.WAITING, TrialState.WAITING]

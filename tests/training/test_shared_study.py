"""One study and several processes without a common parent, as on several machines, on a real PostgreSQL."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pandas as pd
import pytest
import sqlalchemy
from optuna.trial import TrialState

from churn.cli import main
from churn.settings import CONFIGS, load_settings
from support.servers.postgres import postgres
from support.waits import within
from training.tuning.slots import FINISHED, open_storage
from training.tuning.study_runs import record_study
from training.tuning.together import one_at_a_time

PROCESS = """
import sys
import pandas as pd
from churn.settings import load_settings
from training.learn.resolved import FitSettings
from training.tuning.tune import tune

s = load_settings(overrides=sys.argv[1:])
rows = pd.read_parquet(s.files.training_set)
settings = FitSettings("transactions", s.features, s.model, s.training)
found = tune(rows, settings, s.tuning, s.files)
print(found.trials, found.best_log_loss, sorted(found.best_params.items()))
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with postgres() as running:
        yield running


def test_one_process_at_a_time_and_a_dead_one_holds_nothing(address: str) -> None:
    one, other = (sqlalchemy.create_engine(f"{address}studies") for _ in range(2))
    entered = threading.Event()

    def wait() -> None:
        with one_at_a_time(other, "a"):
            entered.set()

    waiting = threading.Thread(target=wait)
    holder = one_at_a_time(one, "a")
    assert holder.__enter__()
    with one_at_a_time(other, "a", wait=False) as same, one_at_a_time(other, "b", wait=False) as another:
        assert (same, another) == (False, True)
    waiting.start()
    assert not entered.wait(0.3)
    end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    with other.connect() as connection:
        connection.execute(sqlalchemy.text(end))  # what the server sees of a machine that is lost
    assert entered.wait(10)
    waiting.join()
    with pytest.raises(sqlalchemy.exc.OperationalError):
        holder.__exit__(None, None, None)
    one.dispose()
    other.dispose()


def test_a_study_that_machines_cannot_share_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "--shared", "--set", f"workspace={tmp_path}"]) == 2
    assert "--shared: tuning.storage is not PostgreSQL" in " ".join(capfd.readouterr().err.split())


def test_rows_of_other_settings_are_refused_before_a_study_of_them_begins(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nowhere = "tuning.storage=postgresql+psycopg://churn:x@127.0.0.1:1/none"
    assert main(["tune", "--shared", "--set", f"workspace={tmp_path}", "--set", nowhere]) == 2
    assert "run `churn steps run training-set` first" in " ".join(capfd.readouterr().err.split())


@pytest.mark.slow
def test_three_processes_share_the_trials_and_a_killed_one_loses_none(
    rows: pd.DataFrame, address: str, tmp_path: Path
) -> None:
    rows[rows["user_id"] < "u_8"].to_parquet(tmp_path / "training-set.parquet", index=False)
    given = [
        f"workspace={tmp_path}",
        f"tuning.storage={address}studies",
        *("training.epochs=12", "training.batch_size=128", "model.hidden=[64]", "training.seed=5"),
        *("tuning.heartbeat_s=1", "tuning.grace_s=3", "tuning.trials=8"),
    ]
    settings = load_settings(overrides=given)

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PROCESS, *given],
            cwd=CONFIGS.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    processes = [start() for _ in range(3)]
    try:
        within(120, lambda: bool(optuna.get_all_study_names(open_storage(settings.tuning))))
        (name,) = optuna.get_all_study_names(open_storage(settings.tuning))
        study = optuna.load_study(study_name=name, storage=open_storage(settings.tuning))
        deadline = time.monotonic() + 240
        while not (_running(study) >= 2 and study.get_trials(states=FINISHED)):
            assert all(process.poll() is None for process in processes) and time.monotonic() < deadline
            time.sleep(0.1)
        processes[0].send_signal(signal.SIGKILL)
        found = {t.number: (t.value, t.params) for t in study.get_trials(states=FINISHED)}
        processes.append(start())  # what a scheduler does
        said = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [-signal.SIGKILL, 0, 0, 0], said
    outputs = {out for out, _ in said[1:]}
    assert len(outputs) == 1 and outputs.pop().startswith("8 "), "all have the same best point"
    trials = study.get_trials()
    assert sum(trial.state in FINISHED for trial in trials) == 8
    assert not any(trial.state in (TrialState.RUNNING, TrialState.WAITING) for trial in trials)
    assert all((trials[number].value, trials[number].params) == what for number, what in found.items())
    again = [t.system_attrs["failed_trial"] for t in trials if "failed_trial" in t.system_attrs]
    assert again == [trial.number for trial in trials if trial.state == TrialState.FAIL]

    where = {"tracking_uri": f"{address}mlflow", "artifacts_uri": str(tmp_path / "artifacts")}
    training = settings.training.model_copy(update=where)
    assert record_study(name, training, settings.tuning) == record_study(name, training, settings.tuning)


def _running(study: optuna.Study) -> int:
    """Trials under way that have drawn their points."""
    return sum(len(trial.params) == 3 for trial in study.get_trials(states=(TrialState.RUNNING,)))

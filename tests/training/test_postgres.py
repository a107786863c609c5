"""Studies and MLflow on a real PostgreSQL; its password is never shown."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import optuna
import pandas as pd
import psutil
import pytest
from optuna.trial import TrialState

from churn.cli import main
from churn.settings import CONFIGS, Settings, load_settings
from core.addresses import masked
from core.errors import ConfigError, TrainingError
from core.workspace import Workspace
from support.fits import fit_settings, trained_model
from support.judging import STORE, evidence_of
from support.servers.postgres import PASSWORD, postgres
from training.gates import judge, write_report
from training.registry.model_registry import Registry
from training.release.content import Run
from training.release.package import package
from training.release.register import register
from training.release.tracking import record_run
from training.tuning.slots import FINISHED, open_storage
from training.tuning.study_runs import record_study
from training.tuning.tune import tune

WHEN = datetime(2026, 11, 22, 12, tzinfo=UTC)
CODE = """
import sys
import pandas as pd
from churn.settings import load_settings
from training.learn.resolved import FitSettings
from training.tuning.tune import tune

s = load_settings(overrides=sys.argv[1:])
rows = pd.read_parquet(s.files.training_set)
say = lambda message: print(message, flush=True)
settings = FitSettings("transactions", s.features, s.model, s.training)
tune(rows, settings, s.tuning, s.files, say)
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with postgres() as running:
        yield running


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg://churn:s3cret@db:5432/x", "postgresql+psycopg://churn:***@db:5432/x"),
        ("postgresql://db/x?user=u&password=s3cret&a=1", "postgresql://db/x?user=u&password=***&a=1"),
        ("host=db password=s3cret dbname=x", "host=db password=*** dbname=x"),
        ("at https://ada:p%40ss:w/rd@mlflow: no, at redis://:pw@r:1", "at https://ada:***@mlflow: no, at redis://:***@r:1"),
        ("sqlite:////var/a:b/mlflow.db", "sqlite:////var/a:b/mlflow.db"),
        ("http://mlflow:5000", "http://mlflow:5000"),
    ],
)  # fmt: skip
def test_an_address_is_shown_without_its_password(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_a_database_that_cannot_be_reached_is_one_line_without_the_password(
    small: Settings, rows: pd.DataFrame, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install '.[postgres]'")
    nowhere = f"postgresql+psycopg://churn:{PASSWORD}@127.0.0.1:1/none"
    tuning = small.tuning.model_copy(update={"storage": nowhere, "trials": 1})
    with pytest.raises(TrainingError, match=r"studies at postgresql\+psycopg://churn:\*\*\*@127") as caught:
        tune(rows, fit_settings(small), tuning, Workspace(tmp_path))
    assert "\n" not in str(caught.value) and PASSWORD not in str(caught.value)
    assert main(["config", "show", "--set", f"tuning.storage={nowhere}"]) == 0
    shown = capfd.readouterr()
    assert "churn:***@127.0.0.1:1" in shown.out and PASSWORD not in shown.out + shown.err


@pytest.mark.slow
def test_an_mlflow_that_cannot_be_reached_is_one_line_without_the_password(small: Settings) -> None:
    """MLflow tries for 100 s before it gives up."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install '.[postgres]'")
    nowhere = f"postgresql+psycopg://churn:{PASSWORD}@127.0.0.1:1/none"
    training = small.training.model_copy(update={"tracking_uri": nowhere})
    with pytest.raises(TrainingError, match=r"MLflow at postgresql\+psycopg://churn:\*\*\*@127") as caught:
        Registry(training).aliases()
    assert "\n" not in str(caught.value) and PASSWORD not in str(caught.value)


def test_studies_and_mlflow_in_one_database_are_refused() -> None:
    both = "postgresql://db/both"
    with pytest.raises(ConfigError, match=r"tuning\.storage: the same database as training.tracking_uri"):
        load_settings(overrides=[f"tuning.storage={both}", f"training.tracking_uri={both}"])


def _running(study: optuna.Study) -> int:
    """Trials under way that have drawn their points."""
    return sum(len(trial.params) == 3 for trial in study.get_trials(states=(TrialState.RUNNING,)))


@pytest.mark.slow
def test_two_workers_and_a_kill_on_postgresql(rows: pd.DataFrame, address: str, tmp_path: Path) -> None:
    rows[rows["user_id"] < "u_8"].to_parquet(tmp_path / "training-set.parquet", index=False)
    overrides = [
        f"workspace={tmp_path}",
        f"tuning.storage={address}studies",
        *("training.epochs=12", "training.batch_size=128", "model.hidden=[64]"),
        *("tuning.heartbeat_s=1", "tuning.grace_s=3", "tuning.workers=2", "tuning.trials=6"),
    ]
    s = load_settings(overrides=overrides)
    parent = subprocess.Popen(
        [sys.executable, "-c", CODE, *overrides],
        cwd=CONFIGS.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert parent.stdout is not None and parent.stdout.readline()
        study = optuna.load_study(study_name=None, storage=open_storage(s.tuning))
        deadline = time.monotonic() + 180
        while not (_running(study) == 2 and study.get_trials(states=FINISHED)):
            assert parent.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        workers = [
            c for c in psutil.Process(parent.pid).children() if "training.tuning.worker" in c.cmdline()
        ]
        os.kill(workers[0].pid, signal.SIGKILL)
        found = {t.number: (t.value, t.params) for t in study.get_trials(states=FINISHED)}
        out, err = parent.communicate(timeout=240)
        assert parent.returncode == 0, err
    finally:
        parent.kill()
        parent.communicate()

    trials = study.trials
    assert len(study.get_trials(states=FINISHED)) == 6
    assert not any(trial.state in (TrialState.RUNNING, TrialState.WAITING) for trial in trials)
    assert all((trials[number].value, trials[number].params) == what for number, what in found.items())
    lost = [trial.number for trial in trials if trial.state == TrialState.FAIL]
    again = [t.system_attrs["failed_trial"] for t in trials if "failed_trial" in t.system_attrs]
    assert len(lost) == 1 and again == lost
    assert PASSWORD not in out + err

    where = {"tracking_uri": f"{address}mlflow", "artifacts_uri": str(tmp_path / "artifacts")}
    training = s.training.model_copy(update=where)
    run = record_study(study.study_name, training, s.tuning)
    assert record_study(study.study_name, training, s.tuning) == run


@pytest.mark.slow
def test_runs_and_the_registry_on_postgresql(
    small: Settings, rows: pd.DataFrame, workspace: Workspace, address: str, tmp_path: Path
) -> None:
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    uri = f"{address}mlflow"
    where = {"tracking_uri": uri, "artifacts_uri": str(tmp_path / "artifacts")}
    training = small.training.model_copy(update=where)
    report = judge(small.gates, evidence_of(small, rows, workspace))
    write_report(report, workspace)
    model = trained_model(small, workspace, training=training)
    run_id = record_run(model, report, "c0ffee")
    archive = package(model, STORE, Run(run_id, "c0ffee"))
    number = register(model, archive, Run(run_id, "c0ffee"), report, "loop", WHEN)
    registry = Registry(training)
    registry.promote(number, "ada", WHEN, "it is the first", {"log_loss": 0.3})

    assert registry.aliases() == {"champion": number}
    assert [decision.action for decision in registry.history()] == ["challenge", "promote"]
    client = MlflowClient(uri, uri)
    assert client.get_run(run_id).data.params["training.epochs"] == "4"
    found = download_artifacts(run_id=run_id, tracking_uri=uri, dst_path=str(tmp_path / "found"))
    for file in Path(found).rglob("*"):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes(), file
    assert "tracking_uri" not in json.loads((Path(found) / "config.json").read_text())["training"]

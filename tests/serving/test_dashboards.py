"""The dashboards: real servers with a real study, which Ctrl-C ends without leftovers."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import optuna
import psutil
import pytest
from optuna.artifacts import FileSystemArtifactStore, upload_artifact

from churn.dashboards import Dashboard, mlflow_server, optuna_dashboard
from churn.settings import CONFIGS
from core.errors import ServingError
from support.waits import within


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/optuna.db", study_name="s")
    artifacts = tmp_path / "optuna-artifacts"
    artifacts.mkdir()
    trial = study.ask()
    (tmp_path / "metrics.json").write_text('{"log_loss": 0.32}')
    upload_artifact(
        artifact_store=FileSystemArtifactStore(artifacts),
        file_path=str(tmp_path / "metrics.json"),
        study_or_trial=trial,
    )
    study.tell(trial, 0.32)
    return tmp_path


def test_optuna_s_dashboard_shows_the_trials_and_their_files(workspace: Path) -> None:
    server = optuna_dashboard(f"sqlite:///{workspace}/optuna.db", workspace / "optuna-artifacts")
    with Dashboard(server, 0, workspace / "log") as dashboard:
        command = psutil.Process(dashboard.pid).cmdline()
        scratch = Path(command[command.index("--from-config") + 1]).parent
        with httpx.Client(base_url=dashboard.url, trust_env=False, timeout=30) as client:
            studies = client.get("/api/studies").json()["study_summaries"]
            trial = client.get(f"/api/studies/{studies[0]['study_id']}?after=0").json()["trials"][0]
            [artifact] = trial["artifacts"]
            path = f"/artifacts/{studies[0]['study_id']}/{trial['trial_id']}/{artifact['artifact_id']}"
            content = client.get(path).json()
        pid = dashboard.pid

    assert studies[0]["study_name"] == "s"
    assert (artifact["filename"], content) == ("metrics.json", {"log_loss": 0.32})
    assert not any("optuna.db" in word for word in command)  # an address may contain a password
    assert not psutil.pid_exists(pid)
    assert not scratch.exists()


@pytest.mark.parametrize(
    ("name", "path", "number"),
    [
        ("optuna", "/api/studies", signal.SIGINT),
        ("optuna", "/api/studies", signal.SIGKILL),
        ("mlflow", "/api/2.0/mlflow/experiments/search?max_results=1", signal.SIGINT),
    ],
)
def test_the_command_prints_an_address_that_answers_and_leaves_no_process(
    workspace: Path, name: str, path: str, number: signal.Signals
) -> None:
    dashboard = subprocess.Popen(
        [sys.executable, "-m", "churn", "dashboard", name, "--set", f"workspace={workspace}"],
        cwd=CONFIGS.parent,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert dashboard.stdout is not None
        url = dashboard.stdout.readline().strip().rpartition(" ")[2]
        assert httpx.get(url + path, trust_env=False, timeout=30).status_code == 200
        started = psutil.Process(dashboard.pid).children(recursive=True)
        if name == "mlflow":
            assert len(started) <= 4, "the job runners are off"
    finally:
        dashboard.send_signal(number)
        code = dashboard.wait(60)
        dashboard.stdout.close()
    assert started
    assert code == (0 if number == signal.SIGINT else -signal.SIGKILL)
    within(60, lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in started))


def test_a_dashboard_that_cannot_start_reports_the_reason(tmp_path: Path) -> None:
    good = optuna_dashboard(f"sqlite:///{tmp_path}/optuna.db", tmp_path / "artifacts")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        with (
            pytest.raises(ServingError, match=f"--port: port {port} on .*: Address already in use"),
            Dashboard(good, port, tmp_path / "log"),
        ):
            pass
    bad = optuna_dashboard("nosuchdb://x", tmp_path / "artifacts")
    with (
        pytest.raises(ServingError, match=r"ended at its start: .*nosuchdb"),
        Dashboard(bad, 0, tmp_path / "l"),
    ):
        pass
    with pytest.raises(ServingError, match="is a server already: open http://mlflow:5000"):
        mlflow_server("http://mlflow:5000", "s3://x")

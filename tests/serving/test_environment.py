"""A started server gets the variables on a list, and no secret of the parent's environment."""

from pathlib import Path

import psutil
import pytest

from serving.config import ServingConfig
from serving.environment import SYSTEM, WORKER, passed_on
from support.served_bundle import ServedBundle
from support.servers.stack import supervisor_of

SECRETS = {
    "CHURN_SIGNING_KEY": "-----BEGIN PRIVATE KEY-----",
    "MLFLOW_TRACKING_PASSWORD": "of the registry",
    "AWS_SECRET_ACCESS_KEY": "of the bucket",
    "PGPASSWORD": "of the database",
    "SOMETHING_ELSE": "not on the list",
}


def test_only_listed_variables_are_passed_on() -> None:
    ours = {
        **SECRETS,
        "PATH": "/bin",
        "LC_ALL": "C",
        "OTEL_SERVICE_NAME": "x",
        "PYTHONPATH": "/elsewhere",
    }
    assert passed_on(SYSTEM, ours) == {"PATH": "/bin", "LC_ALL": "C"}
    assert passed_on(WORKER, ours) == {"PATH": "/bin", "LC_ALL": "C", "OTEL_SERVICE_NAME": "x"}
    assert set(passed_on((*WORKER, "AWS_*"), ours)) == {*passed_on(WORKER, ours), "AWS_SECRET_ACCESS_KEY"}


def test_no_process_of_a_server_has_a_secret_of_its_parent(
    bundle: ServedBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    made = supervisor_of(bundle, tmp_path, serving=ServingConfig(pass_environment=("AWS_*",)))
    with made.supervisor as ours:
        jvm, envoy = psutil.Process(ours.model.pid), psutil.Process(ours.gateway.pid)
        [worker] = jvm.children()
        assert not set(envoy.environ()) & set(SECRETS)
        for process in (jvm, worker):
            assert set(process.environ()) & set(SECRETS) == {"AWS_SECRET_ACCESS_KEY"}


def test_budgets_come_from_the_serving_config(bundle: ServedBundle, tmp_path: Path) -> None:
    """Also when the environment has other values: they are passed on, and the config has precedence."""
    assert set(passed_on(WORKER, {"CHURN_BATCH_ROWS": "1", "CHURN_MAX_EXPLAINED": "1"})) == {
        "CHURN_BATCH_ROWS",
        "CHURN_MAX_EXPLAINED",
    }
    made = supervisor_of(bundle, tmp_path, serving=ServingConfig(batch_rows=7, max_explained=2))
    with made.supervisor as ours:
        [worker] = psutil.Process(ours.model.pid).children()
        assert worker.environ()["CHURN_BATCH_ROWS"] == "7"
        body = {"instances": [{"user_id": i} for i in (1, 2, 3)], "parameters": {"reasons": True}}
        answer = made.post("/v1/models/churn:predict", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"].endswith("reasons for at most 2 a request")

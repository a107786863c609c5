"""The graph of orchestrators, and the workflows `train` and `deploy`: their shell steps are executed here."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from churn.cli import main
from pipelines.steps.graph import DAILY, GRAPH_FILE, SCHEDULE
from support.orchestrators import ROOT, calls_in, own_environment, python_of, recorder

WORKFLOWS = ROOT / ".github" / "workflows"


def workflow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load((WORKFLOWS / name).read_text(), Loader=yaml.BaseLoader)  # noqa: S506
    return found


def shell_steps(job: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["run"] for step in job["steps"] if "name" in step}


def run_step(script: str, folder: Path, **variables: str) -> list[list[str]]:
    """The commands of `churn` that a step gives, executed as GitHub does."""
    program, calls = recorder(folder)
    calls.unlink(missing_ok=True)
    environment = os.environ | {"CHURN": str(program), "GITHUB_ACTOR": "ada"} | variables
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return calls_in(calls)


def test_the_graph_for_orchestrators_is_that_of_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["steps", "list", "--json"]) == 0
    assert capsys.readouterr().out == GRAPH_FILE.read_text(), "run `make graph`"


def test_each_node_follows_what_it_needs_and_a_refusal_is_not_repeated() -> None:
    found = json.loads(GRAPH_FILE.read_text())
    for nodes in (found["daily"], found["training"]):
        done: set[str] = set()
        for node in nodes:
            assert set(node["needs"]) <= done
            done.add(node["name"])
    needs = {node["name"]: node["needs"] for node in found["training"]}
    assert needs["ingest"] == [] and "train" in needs["gates"] and "gates" in needs["package"]
    assert {node["name"]: node["retries"] for node in found["training"]}["gates"] == 0


def test_an_unknown_step_is_refused_with_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["steps", "run", "trainn"]) == 2
    assert "training-set, tune, train" in capsys.readouterr().err


def test_the_daily_workflow_measures_first_and_never_stops_a_training(tmp_path: Path) -> None:
    train = workflow("train.yml")
    assert [entry["cron"] for entry in train["on"]["schedule"]] == [SCHEDULE]
    assert train["concurrency"]["cancel-in-progress"] == "false"
    steps = shell_steps(train["jobs"]["train"])
    daily = [node.name for node in DAILY]
    assert [name for name in steps if name in daily] == daily
    flags = {"CHURN_FLAGS": "--profile production --set workspace=/srv/churn", "FORCE_RETRAIN": "false"}
    words = flags["CHURN_FLAGS"].split()
    for node in DAILY:
        assert run_step(steps[node.name], tmp_path, **flags) == [[*node.command, *words]]


def test_a_forced_training_has_the_flags_of_the_graph_and_names_the_person(tmp_path: Path) -> None:
    steps = shell_steps(workflow("train.yml")["jobs"]["train"])
    (called,) = run_step(steps["retrain"], tmp_path, FORCE_RETRAIN="true", CHURN_FLAGS="")
    expected = next(node for node in DAILY if node.name == "retrain")
    assert called[: len(expected.command) + len(expected.forced) - 1] == [
        *expected.command, *expected.forced[:-1],
    ]  # fmt: skip
    assert called[-1] == "forced by ada"


def test_a_deployment_waits_for_the_reviewers_and_its_reason_is_no_code(tmp_path: Path) -> None:
    jobs = workflow("deploy.yml")["jobs"]
    assert jobs["rollout"]["environment"] == "production" and jobs["rollout"]["needs"] == "check"
    assert "environment" not in jobs["check"]
    assert run_step(shell_steps(jobs["check"])["upload"], tmp_path, CHURN_FLAGS="") == [
        ["deploy", "--store-only"]
    ]
    reason = f'spring"; touch {tmp_path}/written; "$(touch {tmp_path}/written)'
    (called,) = run_step(shell_steps(jobs["rollout"])["deploy"], tmp_path, REASON=reason, CHURN_FLAGS="")
    assert called == ["deploy", "--reason", f"{reason} (by ada)"]
    assert not (tmp_path / "written").exists()


def test_no_expression_of_github_stands_in_a_script() -> None:
    for file in sorted(WORKFLOWS.glob("*.yml")):
        for job in workflow(file.name)["jobs"].values():
            assert not [step for step in job["steps"] if "${{" in step.get("run", "")], file.name


def test_a_secret_that_is_not_defined_is_no_value(tmp_path: Path) -> None:
    program = tmp_path / "churn"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o755)
    environment = os.environ | {"CHURN": str(program), "CHURN_MASK_KEY": "", "CHURN_REDIS": "a:1"}
    done = subprocess.run(
        [ROOT / ".ci" / "churn", "x"], env=environment, capture_output=True, text=True, check=True
    )
    names = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert "CHURN_REDIS" in names and "CHURN_MASK_KEY" not in names


def test_the_workflows_are_valid_for_actionlint() -> None:
    program = os.environ.get("CHURN_ACTIONLINT") or shutil.which("actionlint")
    if program is None:
        pytest.skip("actionlint is not on PATH")
    files = sorted([*WORKFLOWS.glob("*.yml"), *WORKFLOWS.glob("*.yaml")])
    done = subprocess.run([program, "-shellcheck=", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_committed_pipelines_of_kubeflow_are_those_of_the_graph(tmp_path: Path) -> None:
    folder = ROOT / "pipelines" / "kubeflow"
    code = "import pathlib, sys, churn_pipelines; churn_pipelines.compile_all(pathlib.Path(sys.argv[1]))"
    environment = own_environment(PYTHONPATH=str(folder))
    subprocess.run([python_of("kubeflow"), "-c", code, tmp_path], env=environment, check=True)
    for name in ("churn-daily.yaml", "churn-training.yaml"):
        assert (tmp_path / name).read_text() == (folder / name).read_text(), "run `make graph`"

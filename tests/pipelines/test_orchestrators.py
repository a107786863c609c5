"""`churn run`, Airflow, Kubeflow and the commands one by one train the same model, to the byte."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.workspace import Workspace
from support.orchestrators import ROOT, calls_in, churn_program, digests, own_environment, python_of, recorder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # each runner trains

KEY = "a mask key for tests of orchestrators"
SMALL = {
    "tuning": {"trials": 0},
    "model": {"seeds": [0], "trees": False},
    "training": {"epochs": 1, "baselines": ["base_rate", "logistic_regression"], "cross_validation": 0},
}
KUBEFLOW = """
import json, sys
from kfp import local
import churn_pipelines
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[1])
getattr(churn_pipelines, sys.argv[2])(**json.loads(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("orchestrators")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    churn_program(folder / "bin")
    return folder


def flags_of(place: Path, runner: str) -> list[str]:
    return ["--config", str(place / "small.yaml"), "--set", f"workspace={place / runner}"]


@pytest.fixture(scope="module")
def expected(place: Path) -> dict[str, Any]:
    """The digests after `churn run`."""
    words = [place / "bin" / "churn", "run", "--no-rollout", *flags_of(place, "run")]
    subprocess.run(words, env=own_environment(CHURN_MASK_KEY=KEY), check=True, capture_output=True)
    return digests(Workspace(place / "run"))


@pytest.fixture(scope="module")
def airflow(place: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Airflow's program, and an environment with a database of its own."""
    program = python_of("airflow").parent / "airflow"
    environment = own_environment(
        AIRFLOW_HOME=str(place / "airflow-home"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "pipelines" / "airflow"),
        CHURN_MASK_KEY=KEY,
    )
    subprocess.run([program, "db", "migrate"], env=environment, check=True, capture_output=True)
    yield program, environment


def test_the_steps_one_by_one_make_what_churn_run_makes(place: Path, expected: dict[str, Any]) -> None:
    nodes = json.loads((ROOT / "pipelines" / "graph.json").read_text())["training"]
    for node in nodes:
        words = [place / "bin" / "churn", *node["command"], *flags_of(place, "steps")]
        done = subprocess.run(
            words, env=own_environment(CHURN_MASK_KEY=KEY), check=True, capture_output=True, text=True
        )
        assert json.loads(done.stdout)["skipped"] is False
    assert digests(Workspace(place / "steps")) == expected


def test_airflow_makes_what_churn_run_makes(
    place: Path, expected: dict[str, Any], airflow: tuple[Path, dict[str, str]]
) -> None:
    program, environment = airflow
    own = {
        "CHURN_COMMAND": str(place / "bin" / "churn"),
        "CHURN_FLAGS": " ".join(flags_of(place, "airflow")),
    }
    done = subprocess.run(
        [program, "dags", "test", "churn_training"], env=environment | own, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert digests(Workspace(place / "airflow")) == expected


@pytest.mark.parametrize("force", [False, True])
def test_airflow_measures_first_and_forces_a_training_on_request(
    tmp_path: Path, airflow: tuple[Path, dict[str, str]], force: bool
) -> None:
    program, environment = airflow
    churn, calls = recorder(tmp_path)
    own = {"CHURN_COMMAND": str(churn), "CHURN_FLAGS": ""}
    conf = json.dumps({"force_retrain": force})
    words = [program, "dags", "test", "churn_daily", "--conf", conf]
    subprocess.run(words, env=environment | own, check=True, capture_output=True)
    first, second = calls_in(calls)
    assert first == ["monitor"] and second[0] == "retrain" and ("--force" in second) == force


def kubeflow(place: Path, pipeline: str, bin: Path, **arguments: Any) -> None:
    folder = ROOT / "pipelines" / "kubeflow"
    path = f"{bin}:{own_environment()['PATH']}"
    environment = own_environment(PYTHONPATH=str(folder), PATH=path, CHURN_MASK_KEY=KEY)
    words = [python_of("kubeflow"), "-c", KUBEFLOW, place / "kubeflow-root", pipeline, json.dumps(arguments)]
    done = subprocess.run(words, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_kubeflow_makes_what_churn_run_makes(place: Path, expected: dict[str, Any]) -> None:
    kubeflow(place, "training", place / "bin", flags=flags_of(place, "kubeflow"))
    assert digests(Workspace(place / "kubeflow")) == expected


def test_kubeflow_stops_after_a_step_that_failed(tmp_path: Path) -> None:
    churn, calls = recorder(tmp_path / "bin")
    refusing = churn.read_text().rstrip() + '\ncase "$*" in *gates*) exit 3 ;; esac\n'
    churn.write_text(refusing)
    with pytest.raises(AssertionError, match="exit code 3"):
        kubeflow(tmp_path, "training", tmp_path / "bin", flags=[])
    assert [words[2] for words in calls_in(calls)][-1] == "gates"


@pytest.mark.parametrize("force", [False, True])
def test_kubeflow_measures_first_and_forces_a_training_on_request(tmp_path: Path, force: bool) -> None:
    _, calls = recorder(tmp_path / "bin")
    kubeflow(tmp_path, "daily", tmp_path / "bin", flags=[], force_retrain=force)
    first, second = calls_in(calls)
    assert first == ["monitor"] and second[0] == "retrain" and ("--force" in second) == force

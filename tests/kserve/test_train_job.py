"""kserve/components/train-job fits Kubeflow Trainer's CRDs strictly, and its command is one of this project.

The CRDs are those of github.com/kubeflow/trainer, manifests/base/crds: in the folder that CHURN_TRAINER_CRDS
names, or beside the repository in shared/trainer-crds.
"""

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from test_manifests import rendered

from support.kube.api_server import unknown
from training.cli.overlay import as_flags

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "kserve" / "components" / "train-job"
CRDS = Path(os.environ.get("CHURN_TRAINER_CRDS", REPOSITORY.parent / "shared" / "trainer-crds"))


def schema(plural: str) -> Any:
    file = CRDS / f"trainer.kubeflow.org_{plural}.yaml"
    if not file.is_file():
        pytest.skip(f"{file} is not here: fetch Kubeflow Trainer's manifests/base/crds")
    versions = yaml.safe_load(file.read_text(encoding="utf-8"))["spec"]["versions"]
    return next(one for one in versions if one["name"] == "v1alpha1")["schema"]["openAPIV3Schema"]


def job() -> Any:
    return yaml.safe_load((FOLDER / "train-job.yaml").read_text(encoding="utf-8"))


def runtime() -> Any:
    (found,) = [one for one in rendered("standard", "train-job") if one["kind"] == "TrainingRuntime"]
    return found


def complaints(plural: str, content: Any) -> list[Any]:
    known = schema(plural)
    return [*Draft202012Validator(known).iter_errors(content), *unknown(known, content)]


def test_the_job_fits_its_crd_strictly() -> None:
    assert complaints("trainjobs", job()) == []
    wrong = deepcopy(job())
    wrong["spec"]["trainer"]["numNodez"] = wrong["spec"]["trainer"].pop("numNodes")
    assert complaints("trainjobs", wrong) == ["spec.trainer.numNodez"]


def test_the_runtime_fits_its_crd_strictly() -> None:
    assert complaints("trainingruntimes", runtime()) == []
    wrong = deepcopy(runtime())
    (part,) = wrong["spec"]["template"]["spec"]["replicatedJobs"]
    part["template"]["spec"]["template"]["spec"]["containers"][0]["image"] = 5
    assert len(complaints("trainingruntimes", wrong)) == 1


def test_job_and_runtime_name_each_other_and_the_processes_agree() -> None:
    spec, made = job()["spec"], runtime()
    assert spec["runtimeRef"]["name"] == made["metadata"]["name"]
    assert spec["runtimeRef"]["kind"] == made["kind"]
    trainer, args = spec["trainer"], spec["trainer"]["args"]
    assert args[args.index("--trainer.num_nodes") + 1] == str(trainer["numNodes"])
    assert args[args.index("--trainer.devices") + 1] == str(trainer["numProcPerNode"])
    assert trainer["command"] == ["torchrun", "--module", "training", "fit"]
    assert made["spec"]["mlPolicy"]["numNodes"] == trainer["numNodes"]


def test_the_flags_are_those_of_the_training_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "settings.yaml"
    own.write_text("training: {epochs: 3}\n")
    args = [
        str(own) if word == "/etc/churn/settings.yaml" else word for word in job()["spec"]["trainer"]["args"]
    ]
    args = [word if word != "production" else "local" for word in args]
    flags = as_flags(["fit", *args])
    assert "--trainer.strategy" in flags and flags[0] == "fit"

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from churn.settings import Settings
from core.errors import TrainingError
from core.workspace import Workspace
from model.program import Program
from pipelines.context import Context
from pipelines.steps import STEPS
from support.fits import fit_settings, trained_model
from support.judging import STORE, evidence_of, in_registry
from training.gates import judge, write_report
from training.learn.paths import PENALTIES
from training.learn.resolved import FitRecord
from training.release.content import Run
from training.release.package import package
from training.release.register import register
from training.release.tracking import record_run
from training.train import train

WHEN = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_a_run_and_a_challenger_record_their_lineage(
    small: Settings, rows: pd.DataFrame, workspace: Workspace, tmp_path: Path
) -> None:
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.models import get_model_info

    training = small.training.model_copy(
        update={
            "tracking_uri": f"sqlite:///{tmp_path}/mlflow.db",
            "artifacts_uri": str(tmp_path / "artifacts"),
        }
    )
    report = judge(small.gates, evidence_of(small, rows, workspace))
    write_report(report, workspace)
    model = trained_model(small, workspace, training=training)
    run_id = record_run(model, report, "c0ffee", plots={"roc.svg": "<svg/>"})
    archive = package(model, STORE, Run(run_id, "c0ffee"))
    number = register(model, archive, Run(run_id, "c0ffee"), report, "loop", WHEN)
    again = register(model, archive, Run(run_id, "c0ffee"), report, "loop", WHEN)

    client = MlflowClient(training.tracking_uri, training.tracking_uri)
    run = client.get_run(run_id)
    metrics = json.loads((workspace.training / "metrics.json").read_text())
    assert run.info.status == "FINISHED"
    assert run.data.metrics["log_loss"] == pytest.approx(metrics["metrics"]["log_loss"])
    assert run.data.metrics["baseline/bg_nbd/auroc"] > 0.7
    assert run.data.params["training.epochs"] == "4"
    assert run.data.params["model.hidden"] == "[64, 64]"
    assert run.data.params["model.architecture"] == "mlp"  # by the recipe
    assert "None" not in (run.data.params["training.weight_decay"], run.data.params["model.dropout"])
    assert run.data.tags["gates"] == "passed"
    assert run.inputs.dataset_inputs[0].dataset.digest == run.data.tags["data_sha256"][:32]
    assert {file.path for file in client.list_artifacts(run_id)} == {
        "config.json", "data", "gates", "mar", "model_card.md", "plots", "requirements.txt", "training",
    }  # fmt: skip
    assert number == again == "1"
    version = client.get_model_version_by_alias("churn-prediction", "challenger")
    assert version.version == 1 or version.version == "1"
    assert version.tags["archive_sha256"] == archive.sha256
    assert version.tags["spec_digest"] == small.features.digest()
    assert version.run_id == run_id
    signature = get_model_info(str(Path(version.source))).signature
    assert signature.inputs.input_names() == list(small.features.numeric)
    fetched = download_artifacts(
        f"{version.source}/{archive.path.name}", dst_path=str(tmp_path), tracking_uri=training.tracking_uri
    )
    assert Path(fetched).read_bytes() == archive.path.read_bytes()


def test_a_refused_model_has_its_run_and_no_version(
    small: Settings, rows: pd.DataFrame, workspace: Workspace, tmp_path: Path
) -> None:
    """A real model before a floor that it does not reach, judged by the loop's own step."""
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    rows.to_parquet(workspace.training_set, index=False)
    profiles = small.gates.model_dump()["profiles"]
    profiles["default"]["floors"]["minimum"]["auroc"] = 0.97
    gates = small.gates.model_copy(update={"profiles": profiles})
    settings = in_registry(small, tmp_path).model_copy(update={"gates": gates, "workspace": workspace.root})
    uri = settings.training.tracking_uri
    step = next(step for step in STEPS if step.name == "gates")
    step.act(Context(settings, WHEN, lambda message: None, "ada"))

    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name(settings.training.experiment)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["gates"] == "refused"
    assert run.data.tags["gates_failed"] == "floors.auroc"
    downloaded = download_artifacts(
        run_id=run.info.run_id, artifact_path="gates", tracking_uri=uri, dst_path=str(tmp_path / "downloaded")
    )
    assert (Path(downloaded) / "gate_report.json").read_bytes() == (
        workspace.gate_report / "gate_report.json"
    ).read_bytes()
    assert client.search_registered_models() == []
    assert not workspace.model_store.exists()


def test_what_the_rows_have_chosen_is_in_the_run_and_in_the_card(
    small: Settings, rows: pd.DataFrame, workspace: Workspace, tmp_path: Path
) -> None:
    """One snapshot is a labelled table: its epochs, penalty and blend are found by cross-fitting."""
    from mlflow import MlflowClient

    rows = rows[rows["event_timestamp"] == rows["event_timestamp"].max()]
    open_settings = {"epochs": None, "baselines": ("base_rate", "logistic_regression")}
    training = in_registry(small, tmp_path).training.model_copy(update=open_settings)
    model = small.model.model_copy(update={"hidden": (8, 8), "seeds": (0,), "submodels": 2})
    train(rows, fit_settings(small, "labelled", model=model, training=training), workspace)
    used = FitRecord.read(workspace.training)
    settings = small.model_copy(update={"training": training, "data": labelled(small)})
    report = judge(small.gates, evidence_of(settings, rows, workspace))
    write_report(report, workspace)
    run_id = record_run(trained_model(settings, workspace, model=model), report, "c0ffee")

    uri = training.tracking_uri
    params = MlflowClient(uri, uri).get_run(run_id).data.params
    program = Program.load(workspace.training / "members.ckpt")
    assert int(params["training.epochs"]) == used.training.epochs
    assert float(params["cross_fit.penalty"]) in PENALTIES
    weights = [float(params[f"cross_fit.{name}"]) for name in ("weight_deep", "weight_shift")]
    assert weights == pytest.approx(program.blend.weights.tolist()[1:])
    wanted = (
        "model.architecture",
        "model.hidden",
        "model.wide",
        "training.learning_rate",
        "training.batch_size",
    )
    assert "None" not in [params[name] for name in wanted]
    card = (Path(tmp_path) / "artifacts").rglob("model_card.md")
    text = next(card).read_text()
    assert f"| training.epochs | {params['training.epochs']} |" in text
    assert f"| cross_fit.penalty | {params['cross_fit.penalty']} |" in text


def labelled(settings: Settings) -> Any:
    return settings.data.model_copy(update={"shape": "labelled"})


def test_a_server_that_cannot_be_reached_is_named_in_one_line(
    small: Settings, rows: pd.DataFrame, workspace: Workspace, tmp_path: Path
) -> None:
    report = judge(small.gates, evidence_of(small, rows, workspace))
    write_report(report, workspace)
    (tmp_path / "occupied").touch()
    uri = f"sqlite:///{tmp_path}/occupied/mlflow.db"
    training = small.training.model_copy(update={"tracking_uri": uri})

    with pytest.raises(TrainingError, match="MLflow at sqlite:") as caught:
        record_run(trained_model(small, workspace, training=training), report, "c0ffee")
    assert "\n" not in str(caught.value)

import json
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from judging import evidence_of

from churn.settings import Settings
from data.errors import TrainingError
from data.workspace import Workspace
from training.gates import judge, write_report
from training.package import package
from training.tracking import record_run, register

WHEN = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_a_run_and_a_challenger_say_where_they_come_from(
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
    run_id = record_run(
        small.features, small.model, training, workspace, report, "c0ffee", plots={"roc.svg": "<svg/>"}
    )
    archive = package(training, small.features, workspace, "project: churn\n", run_id, "c0ffee")
    number = register(run_id, archive, small.features, training, workspace, report, "c0ffee", "loop", WHEN)
    again = register(run_id, archive, small.features, training, workspace, report, "c0ffee", "loop", WHEN)

    client = MlflowClient(training.tracking_uri, training.tracking_uri)
    run = client.get_run(run_id)
    metrics = json.loads((workspace.training / "metrics.json").read_text())
    assert run.info.status == "FINISHED"
    assert run.data.metrics["log_loss"] == pytest.approx(metrics["metrics"]["log_loss"])
    assert run.data.metrics["baseline/bg_nbd/auroc"] > 0.7
    assert run.data.params["training.epochs"] == "4"
    assert run.data.params["model.hidden"] == "[64, 64]"
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


def test_a_server_that_cannot_be_reached_is_named_in_one_line(
    small: Settings, rows: pd.DataFrame, workspace: Workspace, tmp_path: Path
) -> None:
    report = judge(small.gates, evidence_of(small, rows, workspace))
    write_report(report, workspace)
    (tmp_path / "occupied").touch()
    uri = f"sqlite:///{tmp_path}/occupied/mlflow.db"
    training = small.training.model_copy(update={"tracking_uri": uri})

    with pytest.raises(TrainingError, match="MLflow at sqlite:") as caught:
        record_run(small.features, small.model, training, workspace, report, "c0ffee")
    assert "\n" not in str(caught.value)

"""Registers a packaged archive in MLflow as a version of the model, with the alias `challenger`."""

import json
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from core.workspace import Workspace
from training.archive.signing import signature_file
from training.config import TrainingConfig
from training.gates import GateReport
from training.learn.inputs import Inputs
from training.registry.mlflow_client import client_of, mlflow_errors
from training.registry.model_registry import Registry
from training.release.content import Run
from training.release.package import Archive
from training.release.tracking import lineage_of
from training.trained import TrainedModel

DECISIVE = ("log_loss", "auroc", "auprc", "brier", "ece", "rows")
"""Metrics that are recorded with a decision about a version."""


def register(
    model: TrainedModel, archive: Archive, run: Run, report: GateReport, who: str, when: datetime
) -> str:
    """Registers the .mar as a version of the model with the alias `challenger`; the version's number.

    An archive that is already registered has the same version as before. The alias changes by a decision in
    the registry's log, whose reason contains the overrides of the gates, if there are any. Raises
    TrainingError if the tracking server cannot be reached.
    """
    files, training = model.files, model.settings.training
    tags = lineage_of(model, report, run.git_sha) | {
        "model_version": archive.version,
        "archive_sha256": archive.sha256,
    }
    with mlflow_errors(training.tracking_uri):
        client = client_of(training.tracking_uri)
        name = training.model_name
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        known = [
            version.version
            for version in client.search_model_versions(f"name = '{name}'")
            if version.tags.get("archive_sha256") == archive.sha256
        ]
        number = str(known[0]) if known else _new_version(client, name, run.id, archive, files, tags)
    metrics = json.loads((files.training / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    numbers = {key: metrics[key] for key in DECISIVE if metrics.get(key) is not None}
    Registry(training).challenge(number, who, when, _why(report), numbers)
    return number


def numbers_of(training: TrainingConfig, run_id: str) -> dict[str, float]:
    """The metrics of a run that are recorded with a decision about its version."""
    with mlflow_errors(training.tracking_uri):
        metrics = client_of(training.tracking_uri).get_run(run_id).data.metrics
    return {key: metrics[key] for key in DECISIVE if key in metrics}


def _why(report: GateReport) -> str:
    if not report.overrides:
        return f"gates {report.state} (profile {report.profile})"
    overridden = "; ".join(f"{o.rule} by {o.who}: {o.reason}" for o in report.overrides)
    return f"gates overridden (profile {report.profile}): {overridden}"


def _new_version(
    client: Any, name: str, run_id: str, archive: Archive, files: Workspace, tags: Mapping[str, str]
) -> str:
    """Logs the archive with an MLmodel file beside it, which contains the model's signature."""
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as scratch:
        inputs = Inputs.read(files.training / "inputs.json")
        description = Model(artifact_path="mar", run_id=run_id, signature=signature(inputs))
        description.save(str(Path(scratch) / "MLmodel"))
        client.log_artifact(run_id, str(Path(scratch) / "MLmodel"), "mar")
    for file in (archive.path, signature_file(archive.path)):
        client.log_artifact(run_id, str(file), "mar")
    source = f"{client.get_run(run_id).info.artifact_uri}/mar"
    return str(client.create_model_version(name, source=source, run_id=run_id, tags=dict(tags)).version)


def signature(inputs: Inputs) -> Any:
    """An mlflow ModelSignature: the feature vector in, the probability out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    numbers = [ColSpec(DataType.double, name, required=False) for name in inputs.numeric]
    texts = [ColSpec(DataType.string, name, required=False) for name in inputs.vocabulary]
    return ModelSignature(Schema([*numbers, *texts]), Schema([ColSpec(DataType.double, "churn_probability")]))

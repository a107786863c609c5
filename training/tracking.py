"""MLflow: a run that says how the model came to be, and a registered version that says where it is.

Uses the client alone: no process-wide tracking address, no active run, no job runner.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from time import time_ns
from typing import Any

from data.errors import TrainingError
from data.workspace import Workspace
from features.spec import FeaturesConfig
from model.config import ModelConfig
from training.config import TrainingConfig
from training.gates import GateReport
from training.inputs import Inputs
from training.package import Archive
from training.quiet import quiet

CHALLENGER = "challenger"


def record_run(
    spec: FeaturesConfig,
    model: ModelConfig,
    training: TrainingConfig,
    files: Workspace,
    report: GateReport,
    git_sha: str,
) -> str:
    """A finished run with the params, metrics, data and files of the last training; its id.

    Raises TrainingError when the tracking server cannot be reached.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    manifest = files.manifest.read_bytes()
    result = json.loads((files.training / "metrics.json").read_text(encoding="utf-8"))
    data_sha256 = hashlib.sha256(manifest).hexdigest()
    tags = _lineage(spec, files, report, git_sha) | {"mlflow.source.git.commit": git_sha}
    try:
        with quiet():
            client = _client(training)
            run_id: str = client.create_run(
                _experiment(client, training), run_name=training.model_name
            ).info.run_id
            now = time_ns() // 1_000_000  # the tracking server's own clock, not a time the loop reasons about
            client.log_batch(
                run_id,
                metrics=[Metric(name, value, now, 0) for name, value in _flat_metrics(result).items()],
                params=[Param(key, str(value)) for key, value in _params(model, training).items()],
                tags=[RunTag(key, value) for key, value in tags.items()],
            )
            # MLflow keeps at most 36 characters of a digest; the tag data_sha256 holds all
            data = Dataset(
                name="labels",
                digest=data_sha256[:32],
                source_type="local",
                source=json.dumps({"uri": str(files.manifest)}),
                profile=json.dumps(result["rows"]),
            )
            client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
            client.log_artifacts(run_id, str(files.training.resolve()), "training")
            client.log_artifact(run_id, str(files.manifest), "data")
            client.log_artifacts(run_id, str(files.gate_report.resolve()), "gates")
            client.set_terminated(run_id)
    except (MlflowException, OSError) as error:
        raise TrainingError(f"MLflow at {training.tracking_uri}: {_first_line(error)}") from None
    return run_id


def register(
    run_id: str,
    archive: Archive,
    spec: FeaturesConfig,
    training: TrainingConfig,
    files: Workspace,
    report: GateReport,
    git_sha: str,
) -> str:
    """A version of the registered model whose source is the .mar, with the alias `challenger`; its number.

    An archive that is registered already keeps its version.
    """
    from mlflow.exceptions import MlflowException

    tags = _lineage(spec, files, report, git_sha) | {
        "model_version": archive.version,
        "archive_sha256": archive.sha256,
    }
    try:
        with quiet():
            client = _client(training)
            name = training.model_name
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            known = [
                version.version
                for version in client.search_model_versions(f"name = '{name}'")
                if version.tags.get("archive_sha256") == archive.sha256
            ]
            number = str(known[0]) if known else _new_version(client, name, run_id, archive, files, tags)
            client.set_registered_model_alias(name, CHALLENGER, number)
    except (MlflowException, OSError) as error:
        raise TrainingError(f"MLflow at {training.tracking_uri}: {_first_line(error)}") from None
    return number


def _new_version(
    client: Any, name: str, run_id: str, archive: Archive, files: Workspace, tags: Mapping[str, str]
) -> str:
    """Log the archive with an MLmodel beside it, which carries the signature."""
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as scratch:
        inputs = Inputs.read(files.training / "inputs.json")
        description = Model(artifact_path="mar", run_id=run_id, signature=signature(inputs))
        description.save(str(Path(scratch) / "MLmodel"))
        client.log_artifact(run_id, str(Path(scratch) / "MLmodel"), "mar")
    client.log_artifact(run_id, str(archive.path), "mar")
    source = f"{client.get_run(run_id).info.artifact_uri}/mar"
    return str(client.create_model_version(name, source=source, run_id=run_id, tags=dict(tags)).version)


def signature(inputs: Inputs) -> Any:
    """An mlflow ModelSignature: the feature vector in, the probability out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    numbers = [ColSpec(DataType.double, name, required=False) for name in inputs.numeric]
    texts = [ColSpec(DataType.string, name, required=False) for name in inputs.vocabulary]
    return ModelSignature(Schema([*numbers, *texts]), Schema([ColSpec(DataType.double, "churn_probability")]))


def _client(training: TrainingConfig) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=training.tracking_uri, registry_uri=training.tracking_uri)


def _experiment(client: Any, training: TrainingConfig) -> str:
    found = client.get_experiment_by_name(training.experiment)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(training.experiment, artifact_location=training.artifacts_uri))


def _lineage(spec: FeaturesConfig, files: Workspace, report: GateReport, git_sha: str) -> dict[str, str]:
    return {
        "gates": "passed" if report.passed else "refused",
        "gates_profile": report.profile,
        "gates_digest": report.digest,
        "program_sha256": report.program_sha256,
        "data_sha256": hashlib.sha256(files.manifest.read_bytes()).hexdigest(),
        "spec_digest": spec.digest(),
        "git_sha": git_sha,
    }


def _params(model: ModelConfig, training: TrainingConfig) -> dict[str, Any]:
    where = {"tracking_uri", "artifacts_uri", "experiment", "model_name"}
    sections = {
        "model": model.model_dump(mode="json"),
        "training": training.model_dump(mode="json", exclude=where),
    }
    return {f"{section}.{key}": value for section, tree in sections.items() for key, value in tree.items()}


def _flat_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """The network's by name, the baselines' below `baseline/`; NaN is left out, SQLite has none."""
    flat = dict(result["metrics"])
    for name, metrics in result["baselines"].items():
        flat |= {f"baseline/{name}/{metric}": value for metric, value in metrics.items()}
    flat |= {f"seconds/{name}": value for name, value in result["seconds"].items()}
    return {name: float(value) for name, value in flat.items() if isfinite(value)}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

"""Records a training as a run in MLflow.

It uses only the client: no process-wide tracking address, no active run, no job runner.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from time import time_ns
from typing import Any

from core.workspace import Workspace
from training.evaluate.appraisal import appraisal_metrics
from training.gates import GateReport
from training.gates.slices import flat
from training.learn.checkpoint import ADDRESSES
from training.learn.resolved import FitRecord
from training.registry.mlflow_client import client_of, experiment_of, failed_on_error, mlflow_errors
from training.release.environment import environment, requirements
from training.release.model_card import model_card
from training.trained import TrainedModel

BATCH = 900
"""MLflow takes at most 1,000 metrics in one call."""


def record_run(
    model: TrainedModel, report: GateReport, git_sha: str, plots: Mapping[str, str] | None = None
) -> str:
    """Records a finished run with everything needed to repeat the last training, and its results; its id.

    A refused model has a run too, with the tag `gates`, and the failed rules in `gates_failed`. Params: the
    resolved value of every setting, with the seed and what was chosen by the rows. Tags: data, spec, code,
    gates, environment. Metrics: of the network, each baseline, each test period and segment. Files: data
    manifest, configs as given, installed packages, weights and per-row test scores, gate report, `plots`
    (file name -> SVG), model card.
    Raises TrainingError if the tracking server cannot be reached; a run that was begun is then FAILED.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

    files, training = model.files, model.settings.training
    manifest = files.manifest.read_bytes()
    result = json.loads((files.training / "metrics.json").read_text(encoding="utf-8"))
    used = FitRecord.read(files.training)
    data_sha256 = hashlib.sha256(manifest).hexdigest()
    tags = lineage_of(model, report, git_sha) | {"mlflow.source.git.commit": git_sha}
    tags |= {f"environment.{name}": value for name, value in environment().items()}
    with mlflow_errors(training.tracking_uri), tempfile.TemporaryDirectory() as scratch:
        client = client_of(training.tracking_uri)
        experiment = experiment_of(client, training)
        run_id: str = client.create_run(experiment, run_name=training.model_name).info.run_id
        with failed_on_error(client, run_id):
            client.log_batch(
                run_id,
                params=[Param(key, str(value)) for key, value in used.params().items()],
                tags=[RunTag(key, value) for key, value in tags.items()],
            )
            _log_metrics(client, run_id, _metrics(result, files))
            # MLflow stores at most 36 characters of a digest; the tag data_sha256 has all
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
            if files.training_window.is_file():
                client.log_artifact(run_id, str(files.training_window), "data")
            client.log_artifacts(run_id, str(files.gate_report.resolve()), "gates")
            folder = Path(scratch)
            _write(folder / "config.json", _configs(model))
            _write(folder / "requirements.txt", requirements())
            _write(folder / "model_card.md", model_card(model, report, tags))
            for name, svg in (plots or {}).items():
                _write(folder / "plots" / name, svg)
            client.log_artifacts(run_id, str(folder))
            client.set_terminated(run_id)
    return run_id


def _log_metrics(client: Any, run_id: str, metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric

    now = time_ns() // 1_000_000  # the time of the record in MLflow; no decision depends on it
    found = [Metric(name, value, now, 0) for name, value in metrics.items()]
    for start in range(0, len(found), BATCH):
        client.log_batch(run_id, metrics=found[start : start + BATCH])


def lineage_of(model: TrainedModel, report: GateReport, git_sha: str) -> dict[str, str]:
    """The tags of a run and of a version: gates, program, data, spec and code, by their digests."""
    lineage = {
        "gates": report.state,
        "gates_profile": report.profile,
        "gates_digest": report.digest,
        "program_sha256": report.program_sha256,
        "data_sha256": hashlib.sha256(model.files.manifest.read_bytes()).hexdigest(),
        "spec_digest": model.settings.spec.digest(),
        "git_sha": git_sha,
    }
    if report.failures:
        lineage["gates_failed"] = ", ".join(verdict.rule for verdict in report.failures)
    for override in report.overrides:
        lineage[f"gates_override.{override.rule}"] = f"{override.who}, {override.when}: {override.reason}"
    return lineage


def _configs(model: TrainedModel) -> str:
    """The settings as given, as JSON, without addresses, which may contain passwords."""
    settings, spec = model.settings, model.settings.spec
    content = {
        "features": spec.contract() | {"snapshots": spec.snapshots.model_dump(mode="json")},
        "model": settings.model.model_dump(mode="json"),
        "training": settings.training.model_dump(mode="json", exclude=ADDRESSES),
        "decision": model.decision.model_dump(mode="json"),
    }
    return json.dumps(content, indent=1)


def _metrics(result: Mapping[str, Any], files: Workspace) -> dict[str, float]:
    """Metrics of the network by name, of the baselines below `baseline/`, then cross-validation, importance,
    periods, segments and archive. NaN is left out, since SQLite cannot store it."""
    found = dict(result["metrics"])
    for name, metrics in result["baselines"].items():
        found |= {f"baseline/{name}/{metric}": value for metric, value in metrics.items()}
    found |= {f"seconds/{name}": value for name, value in result["seconds"].items()}
    found |= appraisal_metrics(files.training)
    for file, take in (("breakdown.json", flat), ("measurements.json", _measured)):
        found |= take(json.loads((files.gate_report / file).read_text(encoding="utf-8")))
    return {name: float(value) for name, value in found.items() if isfinite(value)}


def _measured(numbers: Mapping[str, float]) -> dict[str, float]:
    return {f"archive/{name}": value for name, value in numbers.items()}


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")

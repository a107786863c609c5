"""What the run of a registered version recorded: data, settings, code and packages."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core.errors import TrainingError
from features.spec import FeaturesConfig
from model.config import ModelConfig
from training.config import TrainingConfig
from training.registry.mlflow_client import client_of, mlflow_errors
from training.registry.model_registry import Registry, Version

WINDOW = "data/training-window.json"


@dataclass(frozen=True)
class Recorded:
    """Everything that the program of a version depends on."""

    version: Version
    data_sha256: str
    """Of the manifest of the records."""
    spec: FeaturesConfig
    """As recorded, on the stores of the present settings' engine and with local addresses."""
    model: ModelConfig
    training: TrainingConfig
    window: Mapping[str, Any] | None
    """The snapshots that the training left out, if a retraining run chose a window."""
    requirements: frozenset[str]
    """The installed packages, as `name==version`."""


def find_version(registry: Registry, name: str) -> Version:
    """The version with this number, alias or version of the archive. Raises TrainingError if none has it."""
    versions = registry.versions() if registry.exists else []
    number = registry.aliases().get(name, name) if versions else name
    for version in versions:
        if number == version.number or name == version.tags.get("model_version"):
            return version
    raise TrainingError(f"VERSION: {name} is not registered; `churn registry list` shows numbers and aliases")


def read_recorded(
    version: Version, training: TrainingConfig, features: FeaturesConfig, scratch: Path
) -> Recorded:
    """Downloads what the run of `version` recorded. `features` gives the memory and threads of the build.

    Raises TrainingError if the run cannot be read, or has a config that this code does not accept.
    """
    from mlflow.artifacts import download_artifacts

    uri = training.tracking_uri
    with mlflow_errors(uri):
        wanted = ["config.json", "requirements.txt"]
        if any(file.path == WINDOW for file in client_of(uri).list_artifacts(version.run_id, "data")):
            wanted.append(WINDOW)
        files = {
            name: Path(
                download_artifacts(
                    run_id=version.run_id, artifact_path=name, tracking_uri=uri, dst_path=str(scratch)
                )
            )
            for name in wanted
        }
    config = json.loads(files["config.json"].read_text(encoding="utf-8"))
    engine = features.model_dump(mode="json", include={"memory_limit", "threads", "spark"})
    try:
        spec = FeaturesConfig.model_validate(config["features"] | engine)
        model = ModelConfig.model_validate(config["model"])
        fit = TrainingConfig.model_validate(config["training"])
    except (KeyError, ValidationError) as error:
        raise TrainingError(_other_code(version, f"does not accept its config: {_first(error)}")) from None
    if spec.digest() != version.tags.get("spec_digest"):
        raise TrainingError(_other_code(version, "reads its features otherwise"))
    return Recorded(
        version,
        version.tags["data_sha256"],
        spec,
        model,
        fit,
        json.loads(files[WINDOW].read_text(encoding="utf-8")) if WINDOW in files else None,
        frozenset(files["requirements.txt"].read_text(encoding="utf-8").split()),
    )


def _other_code(version: Version, problem: str) -> str:
    commit = version.tags.get("git_sha", "unknown").removesuffix("-dirty")
    return (
        f"version {version.number}: this code {problem}; check out commit {commit} and run this command again"
    )


def _first(error: KeyError | ValidationError) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    found = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"

"""The artifacts of all MLflow runs, by MLflow: equally from a folder, S3 and a server that proxies them."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.backup.vault import Vault
from training.config import TrainingConfig
from training.registry.mlflow_client import client_of, mlflow_errors


def save_artifacts(training: TrainingConfig, vault: Vault) -> dict[str, str]:
    """Path below `training.artifacts_uri` -> sha256."""
    with mlflow_errors(training.tracking_uri), tempfile.TemporaryDirectory() as scratch:
        repository = _repository(training)
        saved = {}
        for path in _files(repository, None):
            local = repository.download_artifacts(path, scratch)
            saved[path] = vault.put_file(Path(local))
            Path(local).unlink()
        return saved


def load_artifacts(training: TrainingConfig, saved: Mapping[str, str], vault: Vault) -> int:
    """Write the artifacts that are missing; return how many are there now. An artifact never changes."""
    with mlflow_errors(training.tracking_uri), tempfile.TemporaryDirectory() as scratch:
        repository = _repository(training)
        present = set(_files(repository, None))
        for path, digest in saved.items():
            if path in present:
                continue
            folder, _, name = path.rpartition("/")
            local = Path(scratch) / name
            vault.get_file(digest, local)
            repository.log_artifact(str(local), folder or None)
            local.unlink()
    return len(saved)


def _repository(training: TrainingConfig) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client_of(training.tracking_uri)  # switches off MLflow's bar for each file
    root = training.artifacts_uri
    if "://" not in root and ":/" not in root:
        Path(root).mkdir(parents=True, exist_ok=True)
    return get_artifact_repository(root, tracking_uri=training.tracking_uri)


def _files(repository: Any, folder: str | None) -> Iterator[str]:
    for found in repository.list_artifacts(folder):
        if found.is_dir:
            yield from _files(repository, found.path)
        else:
            yield str(found.path)

"""Fetches the archive of a registered version; every download of an archive uses this module.

The caller has to verify the archive (training/archive/verify.py) before loading anything from it.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from core.errors import ArchiveError
from training.archive.signing import signature_file
from training.registry.mlflow_client import mlflow_errors
from training.registry.model_registry import Version


def fetch(version: Version, tracking_uri: str, folder: Path) -> Path:
    """Downloads the registered .mar and its signature below `folder`; the path of the .mar.

    Raises TrainingError if the registry cannot be reached, ArchiveError if it does not hold the archive that
    was registered.
    """
    from mlflow.artifacts import download_artifacts

    with mlflow_errors(tracking_uri):
        downloaded = download_artifacts(version.source, dst_path=str(folder), tracking_uri=tracking_uri)
    if archive := find_registered(Path(downloaded).rglob("*.mar"), version):
        return archive
    raise ArchiveError(
        f"version {version.number}: the registry does not hold the archive that was registered, with its "
        "signature; package again"
    )


def find_registered(archives: Iterable[Path], version: Version) -> Path | None:
    """The signed archive with the registered sha256, or None."""
    wanted = version.tags.get("archive_sha256")
    for archive in sorted(archives):
        if signature_file(archive).is_file() and hashlib.sha256(archive.read_bytes()).hexdigest() == wanted:
            return archive
    return None

"""The archive of a registered version, as the registry holds it: the one way to fetch it.

Whoever fetches an archive has it verified (training/archive/verify.py) before anything of it is loaded.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from data.errors import ArchiveError
from training.archive.signing import signature_file
from training.registry.mlflow_client import reaching
from training.registry.model_registry import Version


def fetch(version: Version, tracking_uri: str, folder: Path) -> Path:
    """The registered .mar below `folder`, its signature beside it.

    Raises TrainingError where the registry cannot be reached, ArchiveError where it does not hold the
    archive that was registered.
    """
    from mlflow.artifacts import download_artifacts

    with reaching(tracking_uri):
        downloaded = download_artifacts(version.source, dst_path=str(folder), tracking_uri=tracking_uri)
    if archive := among(Path(downloaded).rglob("*.mar"), version):
        return archive
    raise ArchiveError(
        f"version {version.number}: the registry does not hold the archive that was registered, with its "
        "signature; package again"
    )


def among(archives: Iterable[Path], version: Version) -> Path | None:
    """The signed archive that is the registered one to the byte."""
    wanted = version.tags.get("archive_sha256")
    for archive in sorted(archives):
        if signature_file(archive).is_file() and hashlib.sha256(archive.read_bytes()).hexdigest() == wanted:
            return archive
    return None

"""The archive of a registered version, brought to where a server of this machine can load it."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from data.errors import ArchiveError
from pipelines.context import Stages
from pipelines.model_store import ModelStore
from rollout.targets.target import Candidate
from training.mlflow_client import reaching
from training.registry import Registry, Version
from training.signing import SUFFIX, signature_file, trusted_signers
from training.verify import verify_archive


def champion(settings: Stages, say: Callable[[str], None] = lambda message: None) -> Candidate | None:
    """The version that serves, as `candidate_of`; None where there is none yet."""
    version = Registry(settings.training).champion()
    return None if version is None else candidate_of(settings, version, say)


def candidate_of(
    settings: Stages, version: Version, say: Callable[[str], None] = lambda message: None
) -> Candidate:
    """A registered version as a verified archive in the workspace's store, where its content never changes.

    Raises TrainingError where the registry cannot be reached, ArchiveError for an archive that is lost, was
    changed, is of a signer nobody trusts, or was made for other features than are online now.
    """
    archive = _stored(settings, version, say)
    trusted = trusted_signers(settings.training.trusted_signers, settings.files)
    verified = verify_archive(archive, trusted, version.tags.get("archive_sha256"))
    if verified.spec_digest != settings.features.digest():
        raise ArchiveError(
            f"version {version.number}: made for feature spec {verified.spec_digest[:12]}, and"
            f" {settings.features.digest()[:12]} is online; it cannot serve beside this one"
        )
    return Candidate(str(archive), verified.sha256, verified.version)


def _stored(settings: Stages, version: Version, say: Callable[[str], None]) -> Path:
    """What was deployed before; else what was packaged here; else what the registry holds."""
    from mlflow.artifacts import download_artifacts

    store, uri = settings.files.model_store, settings.training.tracking_uri
    if kept := _among(store.glob("*/model-store/*.mar"), version):
        return kept
    if packaged := _among(store.glob("*.mar"), version):
        return _keep(settings, version, packaged)
    say(f"fetching version {version.number} from the registry")
    with TemporaryDirectory() as scratch:
        with reaching(uri):
            folder = Path(download_artifacts(version.source, dst_path=scratch, tracking_uri=uri))
        if downloaded := _among(folder.rglob("*.mar"), version):
            return _keep(settings, version, downloaded)
    raise ArchiveError(
        f"version {version.number}: the registry does not hold the archive that was registered; package again"
    )


def _among(archives: Iterable[Path], version: Version) -> Path | None:
    wanted = version.tags.get("archive_sha256")
    for archive in sorted(archives):
        if signature_file(archive).is_file() and hashlib.sha256(archive.read_bytes()).hexdigest() == wanted:
            return archive
    return None


def _keep(settings: Stages, version: Version, archive: Path) -> Path:
    """A copy under a name of its content; packaging the same model again replaces the file that it writes."""
    store = ModelStore(str(settings.files.model_store))
    content, signature = archive.read_bytes(), signature_file(archive).read_bytes()
    name = f"{version.tags.get('model_version', version.number)}-{hashlib.sha256(content).hexdigest()[:12]}"
    packed = f"model-store/{settings.serving.model_name}.mar"
    store.put(name, {packed: content, packed + SUFFIX: signature})
    return Path(store.address(name)) / packed

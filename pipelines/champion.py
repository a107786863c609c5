"""The archive of a registered version, brought to where a server of this machine can load it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from core.errors import ArchiveError
from pipelines.context import Stages
from pipelines.model_store import ModelStore
from pipelines.verified import verified
from rollout.targets.target import Candidate
from training.archive.signing import SUFFIX, signature_file
from training.registry.fetch import fetch, find_registered
from training.registry.model_registry import Registry, Version


def champion(settings: Stages, say: Callable[[str], None] = lambda message: None) -> Candidate | None:
    """The version that serves, as `registered_candidate`; None where there is none yet."""
    version = Registry(settings.training).champion()
    return None if version is None else registered_candidate(settings, version, say)


def registered_candidate(
    settings: Stages, version: Version, say: Callable[[str], None] = lambda message: None
) -> Candidate:
    """A registered version as a verified archive in the workspace's store, where its content never changes.

    Raises TrainingError where the registry cannot be reached, ArchiveError for an archive that is lost, was
    changed, is of a signer nobody trusts, or was made for other features than are online now.
    """
    archive = _stored(settings, version, say)
    checked = verified(settings, archive, version.tags.get("archive_sha256"))
    if checked.spec_digest != settings.features.digest():
        raise ArchiveError(
            f"version {version.number}: made for feature spec {checked.spec_digest[:12]}, and"
            f" {settings.features.digest()[:12]} is online; it cannot serve beside this one"
        )
    return Candidate(str(archive), checked.sha256, checked.version)


def _stored(settings: Stages, version: Version, say: Callable[[str], None]) -> Path:
    """What was deployed before; else what was packaged here; else what the registry holds."""
    store, uri = settings.files.model_store, settings.training.tracking_uri
    if deployed := find_registered(store.glob("*/model-store/*.mar"), version):
        return deployed
    if packaged := find_registered(store.glob("*.mar"), version):
        return _keep(settings, version, packaged)
    say(f"fetching version {version.number} from the registry")
    with TemporaryDirectory() as scratch:
        return _keep(settings, version, fetch(version, uri, Path(scratch)))


def _keep(settings: Stages, version: Version, archive: Path) -> Path:
    """A copy under a name of its content; packaging the same model again replaces the file that it writes."""
    store = ModelStore(str(settings.files.model_store))
    content, signature = archive.read_bytes(), signature_file(archive).read_bytes()
    name = f"{version.tags.get('model_version', version.number)}-{hashlib.sha256(content).hexdigest()[:12]}"
    packed = f"model-store/{settings.serving.model_name}.mar"
    store.put(name, {packed: content, packed + SUFFIX: signature})
    return Path(store.address(name)) / packed

"""Archives by their content: of which model they are, and where on this machine they lie."""

import hashlib
import json
import zipfile
from pathlib import Path

from core.errors import ArchiveError, ChurnError
from pipelines.champion import registered_candidate
from pipelines.context import Stages
from pipelines.model_store import ModelStore
from pipelines.verified import verified
from rollout.errors import RolloutError
from rollout.targets.target import Candidate
from training.archive.signing import SUFFIX, signature_file
from training.registry.model_registry import Registry


def candidate_at(archive: Path) -> Candidate:
    """An archive on this machine. Raises RolloutError when it cannot be read."""
    try:
        content = archive.read_bytes()
        with zipfile.ZipFile(archive) as files:
            version = str(json.loads(files.read("bundle.json"))["model_version"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise RolloutError(f"{archive}: not an archive of ours ({error}); run `churn package`") from None
    return Candidate(str(archive), hashlib.sha256(content).hexdigest(), version)


def stored(settings: Stages, archive: Path, sha256: str | None = None) -> Candidate:
    """A verified archive, copied to where its content never changes: packaging the same model again replaces
    the file that it wrote. Raises ArchiveError or GateFailure for one that must not be served."""
    checked = verified(settings, archive, sha256)
    store = ModelStore(str(settings.files.model_store))
    name = f"{checked.version}-{checked.sha256[:12]}"
    packed = f"model-store/{settings.serving.model_name}.mar"
    store.put(name, {packed: checked.content, packed + SUFFIX: signature_file(archive).read_bytes()})
    return Candidate(str(Path(store.address(name)) / packed), checked.sha256, checked.version)


def found_here(settings: Stages, candidate: Candidate) -> Candidate:
    """The same archive, verified, where this machine can load it: at its address, in the workspace's store or
    from the registry. Raises ArchiveError with the reason when it is in none of them."""
    failures: list[str] = []
    places = [candidate.path, *settings.files.model_store.rglob("*.mar")]
    for place in places:
        if not place.is_file() or _sha256(place) != candidate.sha256:
            continue
        try:
            if place.parent == settings.files.model_store:  # the next packaging writes over it
                return stored(settings, place, candidate.sha256)
            verified(settings, place, candidate.sha256)
        except ChurnError as error:
            failures.append(str(error))
            continue
        return Candidate(str(place), candidate.sha256, candidate.version)
    registry = Registry(settings.training)
    try:
        versions = registry.versions() if registry.exists else []
        for version in versions:
            if version.tags.get("archive_sha256") == candidate.sha256:
                return registered_candidate(settings, version)
    except ChurnError as error:
        failures.append(str(error))
    why = f": {failures[0]}" if failures else ""
    raise ArchiveError(
        f"version {candidate.version}, archive {candidate.sha256[:12]}: is stable by rollout.database, and is"
        f" neither at {candidate.archive} nor in the workspace nor in the registry{why}"
    )


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()

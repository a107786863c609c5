"""Finds archives that may serve: by file, by registered version, or by the content recorded as stable."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from core.errors import ArchiveError, ChurnError
from pipelines.context import Stages
from pipelines.model_store import ModelStore, packed_path
from pipelines.services import registered
from pipelines.verified import verified
from rollout.errors import RolloutError
from rollout.targets.target import Candidate
from training.archive.signing import SUFFIX, signature_file
from training.archive.verify import Verified
from training.registry.fetch import fetch, find_registered
from training.registry.model_registry import Registry, Version

Progress = Callable[[str], None]


def candidate_at(archive: Path) -> Candidate:
    """An archive on this machine, not verified. Raises RolloutError when it cannot be read."""
    try:
        content = archive.read_bytes()
        with zipfile.ZipFile(archive) as files:
            version = str(json.loads(files.read("bundle.json"))["model_version"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise RolloutError(f"{archive}: not an archive of ours ({error}); run `churn package`") from None
    return Candidate(str(archive), hashlib.sha256(content).hexdigest(), version)


def stored(settings: Stages, archive: Path, sha256: str | None = None) -> Candidate:
    """A verified archive, copied to a folder whose content never changes.

    The copy is needed because packaging the same model again replaces the file that packaging wrote. Raises
    ArchiveError or GateFailure for an archive that must not be served.
    """
    checked = verified(settings, archive, sha256)
    _refuse_other_store(settings, archive)
    return _copied(settings, archive, checked)


def champion(settings: Stages, progress: Progress = lambda message: None) -> Candidate | None:
    """The champion of the registry, as `registered_candidate`; None where there is none yet."""
    version = Registry(settings.training).champion()
    return None if version is None else registered_candidate(settings, version, progress)


def registered_candidate(
    settings: Stages, version: Version, progress: Progress = lambda message: None
) -> Candidate:
    """A registered version as a verified archive in the workspace's store, where its content never changes.

    Raises TrainingError where the registry cannot be reached, ArchiveError for an archive that is lost, was
    changed, has an untrusted signer, or reads a service that is not online.
    """
    with _archive_of(settings, version, progress) as archive:
        checked = verified(settings, archive, version.tags.get("archive_sha256"))
        _refuse_other_store(settings, archive)
        refuse_offline(settings, checked)
        if archive.parents[2] == settings.files.model_store:  # deployed before
            return Candidate(str(archive), checked.sha256, checked.version)
        return _copied(settings, archive, checked)


def found_here(settings: Stages, candidate: Candidate) -> Candidate:
    """The same archive, verified, where this machine can load it: at its address, in the workspace's store or
    from the registry. Raises ArchiveError with the reason when it is in none of them."""
    failures: list[str] = []
    for place in [candidate.path, *settings.files.model_store.rglob("*.mar")]:
        if not place.is_file() or _sha256(place) != candidate.sha256:
            continue
        try:
            if place.parent == settings.files.model_store:  # the next packaging replaces this file
                return stored(settings, place, candidate.sha256)
            verified(settings, place, candidate.sha256)
            _refuse_other_store(settings, place)
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


def refuse_offline(settings: Stages, checked: Verified) -> None:
    """Raises ArchiveError for an archive whose feature service is not in the feature store."""
    service = str(checked.spec.get("service"))
    found = registered(settings).get(service)
    if found != checked.spec_digest:
        instead = f"is online for another spec ({found[:12]})" if found else "is not online"
        raise ArchiveError(
            f"version {checked.version}: reads features.service {service} (spec {checked.spec_digest[:12]}),"
            f" which {instead}; configure the features of this version and run `churn features build` and"
            " `churn features materialize`"
        )


def _refuse_other_store(settings: Stages, archive: Path) -> None:
    """Raises ArchiveError for an archive that reads an online store of another type than the configured one,
    as after a move from SQLite to Redis."""
    with zipfile.ZipFile(archive) as files:
        if "feature_store.yaml" not in files.namelist():
            return
        config = yaml.safe_load(files.read("feature_store.yaml"))
    reads, configured = config["online_store"]["type"], settings.features.online_store["type"]
    if reads != configured:
        raise ArchiveError(
            f"{archive.name}: reads an online store of type {reads}, and features.online_store is"
            f" {configured}; run `churn package`"
        )


@contextmanager
def _archive_of(settings: Stages, version: Version, progress: Progress) -> Iterator[Path]:
    """The deployed archive of a version; else the one packaged here; else the one in the registry."""
    store = settings.files.model_store
    if deployed := find_registered(store.glob("*/model-store/*.mar"), version):
        yield deployed
    elif packaged := find_registered(store.glob("*.mar"), version):
        yield packaged
    else:
        progress(f"fetching version {version.number} from the registry")
        with TemporaryDirectory() as scratch:
            yield fetch(version, settings.training.tracking_uri, Path(scratch))


def _copied(settings: Stages, archive: Path, checked: Verified) -> Candidate:
    """The archive in the workspace's store, in a folder named after its version and content."""
    store, packed = ModelStore(str(settings.files.model_store)), packed_path(settings)
    name = f"{checked.version}-{checked.sha256[:12]}"
    store.put(name, {packed: checked.content, packed + SUFFIX: signature_file(archive).read_bytes()})
    return Candidate(str(Path(store.address(name)) / packed), checked.sha256, checked.version)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()

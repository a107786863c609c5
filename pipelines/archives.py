"""Finds the archive of a model, by content or version, and verifies it: from this machine or the registry."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from core.errors import ArchiveError, TrainingError
from pipelines.context import Stages
from pipelines.doctor.stores import unreachable
from pipelines.verified import verified
from training.archive.verify import Verified
from training.registry.fetch import fetch
from training.registry.model_registry import Registry, Version


def archive_with(settings: Stages, sha256: str, address: str = "") -> Verified:
    """The archive with this content. `address`: where servers load it, which may be on this machine.

    Raises ArchiveError when it is in none of the places, or not trusted; TrainingError for the registry.
    """
    for place in _places(settings, address):
        if hashlib.sha256(place.read_bytes()).hexdigest() == sha256:
            return verified(settings, place, sha256)
    return _registered(
        settings, f"archive {sha256[:12]}", lambda version: version.tags.get("archive_sha256") == sha256
    )


def archive_of_version(settings: Stages, version: str) -> Verified:
    """The archive of a model version. Raises as `archive_with`."""
    for place in _places(settings):
        if version_of(place) == version:
            return verified(settings, place)
    return _registered(settings, f"version {version}", lambda one: one.tags.get("model_version") == version)


def registered_version(settings: Stages, name: str) -> str:
    """The model's version for a number or alias of the registry; another `name` is returned as it is."""
    registry = Registry(settings.training)
    if unreachable(settings.training.tracking_uri) or not registry.exists:
        return name
    number = registry.aliases().get(name, name)
    tags = next((version.tags for version in registry.versions() if version.number == number), {})
    return tags.get("model_version", name)


def version_of(archive: Path) -> str:
    """The model's version in the bundle of an archive, unverified; empty for another file."""
    try:
        with zipfile.ZipFile(archive) as content:
            return str(json.loads(content.read("bundle.json"))["model_version"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return ""


def _places(settings: Stages, address: str = "") -> Iterator[Path]:
    if address and Path(address).is_file():
        yield Path(address)
    yield from sorted(settings.files.model_store.rglob("*.mar"))


def _registered(settings: Stages, what: str, is_wanted: Callable[[Version], bool]) -> Verified:
    if fault := unreachable(settings.training.tracking_uri):
        raise TrainingError(f"{what}: is not in the workspace, and the registry cannot be reached: {fault}")
    registry = Registry(settings.training)
    if registry.exists:
        for version in registry.versions():
            if is_wanted(version):
                with TemporaryDirectory() as scratch:
                    archive = fetch(version, settings.training.tracking_uri, Path(scratch))
                    return verified(settings, archive, version.tags.get("archive_sha256"))
    raise ArchiveError(f"{what}: is neither in the workspace nor in the registry")

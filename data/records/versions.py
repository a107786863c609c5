"""Versions of the records. Each is a folder named by the sha256 of its manifest; `current` links to one.

A version is complete before it gets its name, and the link is replaced in one rename. After a killed run, the
link therefore points to the complete old version or to the complete new one.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.errors import DataError
from core.workspace import Workspace, fresh_directory, point_to
from data.records.folder import parts_of

MIN_PREFIX_DIGITS = 8


@dataclass(frozen=True)
class Version:
    folder: Path
    sha256: str
    """Of the manifest."""
    manifest: dict[str, Any]
    made: datetime
    current: bool


@contextmanager
def new_version(files: Workspace, keep: int) -> Iterator[Path]:
    """Yield an empty folder to fill, manifest included. On success it becomes the current version.

    The newest `keep - 1` older versions are retained. When the block fails, nothing changes.
    """
    with fresh_directory(files.data) as fresh:
        yield fresh
        name = _name(fresh / files.manifest.name)
        folder = fresh.with_name(name)
        for number in range(1, 1000):
            if not folder.exists() or _is_whole(folder, files):
                break
            folder = fresh.with_name(f"{name}.{number}")  # the folder is damaged, but may still be read
        if folder.exists():
            shutil.rmtree(fresh)  # this version exists already
            os.utime(folder)
        else:
            fresh.rename(folder)
        point_to(files.data, folder)
    for old in versions(files)[keep:]:
        shutil.rmtree(old.folder, ignore_errors=True)


def versions(files: Workspace) -> list[Version]:
    """All versions, the current one first, then from the newest to the oldest."""
    current = files.data.resolve()
    found = []
    for manifest in files.data.parent.glob(f"*/{files.manifest.name}"):
        folder = manifest.parent
        if folder.is_symlink() or len(folder.name.partition(".")[0]) != 64:
            continue
        try:
            content = json.loads(manifest.read_text(encoding="utf-8"))
            made = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        except (OSError, ValueError):
            continue
        found.append(Version(folder, folder.name.partition(".")[0], content, made, folder == current))
    return sorted(found, key=lambda version: (not version.current, -version.made.timestamp()))


def find(files: Workspace, sha256: str) -> Path:
    """The folder of the version whose sha256 begins with `sha256`, which has at least 8 digits.

    Raises DataError when there is none, for example because it was deleted.
    """
    known = versions(files)
    matching = [version for version in known if version.sha256.startswith(sha256)]
    if len(sha256) < MIN_PREFIX_DIGITS or not matching:
        available = ", ".join(dict.fromkeys(version.sha256[:12] for version in known)) or "none"
        raise DataError(
            f"data version {sha256}: not there (there are {available}); ingest its source again, and raise"
            " data.keep_versions to keep more"
        )
    return matching[0].folder


def current_manifest(files: Workspace) -> dict[str, Any]:
    """The manifest of the current version. Raises DataError when there is none, or when it is not JSON."""
    try:
        return dict(json.loads(files.manifest.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f"{files.manifest}: not there; run `churn ingest` first") from None
    except ValueError:
        raise DataError(f"{files.manifest}: not JSON; run `churn ingest` again") from None


def _name(manifest: Path) -> str:
    return hashlib.sha256(manifest.read_bytes()).hexdigest()


def _is_whole(folder: Path, files: Workspace) -> bool:
    """Whether all files exist and every part has its number of rows, according to the parts' metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        manifest = json.loads((folder / files.manifest.name).read_text(encoding="utf-8"))
        found = {part.name: pq.read_metadata(part).num_rows for part in parts_of(folder / files.records.name)}
        beside = [folder / place / name for place in ("index", "customers") for name in found]
    except (OSError, ValueError, DataError, pa.ArrowException):
        return False
    return found == {part["name"]: part["rows"] for part in manifest["parts"]} and all(
        path.is_file() for path in [*beside, folder / files.rejected.name, folder / files.validation.name]
    )

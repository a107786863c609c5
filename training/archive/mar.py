"""The archive as a file: the same bytes for the same content, and no entry that points outside."""

import io
import json
import stat
import zipfile
import zlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import ArchiveError

MANIFEST = "MAR-INF/MANIFEST.json"
LARGEST_BYTES = 8 << 30
"""Largest unpacked size: far above the size of a model, far below the size of a disk."""


def normalise(archive: Path, created: datetime) -> None:
    """Writes the zip again with the time `created`, since torch-model-archiver writes the current time.

    Entries are sorted, with one time and one mode, and the manifest's `createdOn` is `created` as well.
    """
    with zipfile.ZipFile(archive) as content:
        entries = {name: content.read(name) for name in content.namelist() if not name.endswith("/")}
    manifest = json.loads(entries[MANIFEST])
    manifest["createdOn"] = f"{created:%d/%m/%Y %H:%M:%S}"  # the archiver's format of a time
    entries[MANIFEST] = json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n"
    partial = archive.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as content:
        for name, entry in sorted(entries.items()):
            info = zipfile.ZipInfo(name, created.timetuple()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix, whose permissions these are
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            content.writestr(info, entry, compresslevel=6)
    partial.replace(archive)


def open_checked(data: bytes, name: str) -> zipfile.ZipFile:
    """The archive whose bytes are `data`, checked to be safe to unpack.

    Raises ArchiveError for a file that is no zip, for an entry that would be written outside the folder it is
    unpacked to, for links, duplicate names, encryption, a wrong checksum, and for more than LARGEST_BYTES.
    """
    try:
        content = zipfile.ZipFile(io.BytesIO(data))
        _refuse_unsafe_entries(content, name)
        broken = content.testzip()
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError, ValueError):
        raise ArchiveError(f"{name}: not a readable zip file; fetch or package the model again") from None
    if broken:
        raise ArchiveError(f"{name}: {broken} is damaged; fetch or package the model again")
    return content


def read_json(content: zipfile.ZipFile, entry: str, name: str) -> Mapping[str, Any]:
    """An entry that must be a JSON object. Raises ArchiveError if it is missing or something else."""
    try:
        found = json.loads(content.read(entry))
    except KeyError:
        raise ArchiveError(f"{name}: holds no {entry}; package the model again") from None
    except ValueError:
        raise ArchiveError(f"{name}: {entry} is not JSON; package the model again") from None
    if not isinstance(found, dict):
        raise ArchiveError(f"{name}: {entry} is not an object; package the model again")
    return found


def _refuse_unsafe_entries(content: zipfile.ZipFile, name: str) -> None:
    entries = content.infolist()
    seen: set[str] = set()
    for entry in entries:
        path, original = PurePosixPath(entry.filename), entry.orig_filename
        shown = repr(entry.filename)
        mode = entry.external_attr >> 16
        if path.is_absolute() or ".." in path.parts or set(original) & {"\\", ":"}:
            raise ArchiveError(f"{name}: entry {shown} points outside the archive; do not use this file")
        if original != entry.filename:
            raise ArchiveError(f"{name}: entry {shown} hides a part of its name; do not use this file")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveError(f"{name}: entry {shown} is a link or a device; do not use this file")
        if entry.flag_bits & 1:
            raise ArchiveError(f"{name}: entry {shown} is encrypted; do not use this file")
        if str(path) in seen:
            raise ArchiveError(f"{name}: entry {shown} is there twice; do not use this file")
        seen.add(str(path))
    if sum(entry.file_size for entry in entries) > LARGEST_BYTES:
        raise ArchiveError(f"{name}: unpacks to more than {LARGEST_BYTES >> 30} GiB; do not use this file")

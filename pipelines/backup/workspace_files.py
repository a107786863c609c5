"""The files of a workspace: what core/workspace.py names, with modes and times; private ones encrypted."""

import json
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from core.workspace import Workspace, write_atomically
from pipelines.backup.vault import BackupError, Vault

FURTHER = ("rehearsal", "run", "stream")
"""Folders of commands, beside what Workspace names."""
LEFT_OUT = ("logs", "server.json")
"""Of servers that run now."""
SQLITE = b"SQLite format 3\x00"
PATHS = ("newest.json",)
"""JSON files with paths of this machine."""


def save_files(files: Workspace, vault: Vault, databases: Collection[Path]) -> list[dict[str, Any]]:
    """Each file, link and folder with its mode and time. `databases` are saved as rows elsewhere."""
    skipped = {path.resolve() for path in databases}
    return [
        _entry(path, files.root, vault)
        for top in names(files)
        for path in _below(files.root / top)
        if path.resolve() not in skipped or path.is_symlink()
    ]


def load_files(files: Workspace, entries: Sequence[Mapping[str, Any]], vault: Vault, former: str) -> int:
    """Replace the workspace's files by the saved ones; return their number.

    All are written beside the workspace's own first, then each top folder is exchanged by a rename. `former`:
    the root of the workspace that was saved, which paths in records begin with.
    """
    root = files.root
    root.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".restoring-", dir=root))
    try:
        for entry in entries:
            _write(fresh / entry["path"], entry, vault)
        for entry in reversed(entries):  # a file that is written changes the time of its folder
            if entry["kind"] == "folder":
                os.utime(fresh / entry["path"], ns=(entry["time"], entry["time"]))
        _move_paths(fresh, former, str(root))
        for name in names(files):
            _exchange(fresh / name, root / name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return sum(entry["kind"] == "file" for entry in entries)


def names(files: Workspace) -> list[str]:
    """The first parts of all paths that core/workspace.py names, without locks."""
    found = {
        getattr(files, name).relative_to(files.root).parts[0]
        for name, value in vars(Workspace).items()
        if isinstance(value, property)
    }
    return sorted((found | set(FURTHER)) - {files.lock.name})


def is_empty(files: Workspace) -> bool:
    return not any((files.root / name).exists() for name in names(files))


def _below(top: Path) -> Iterator[Path]:
    if not (top.exists() or top.is_symlink()) or top.name in LEFT_OUT:
        return
    if top.name.endswith((".lock", "-wal", "-shm", "-journal")) or stat.S_ISSOCK(top.lstat().st_mode):
        return
    yield top
    if top.is_dir() and not top.is_symlink():
        for path in sorted(top.iterdir()):
            yield from _below(path)


def _entry(path: Path, root: Path, vault: Vault) -> dict[str, Any]:
    facts = path.lstat()
    entry: dict[str, Any] = {
        "path": path.relative_to(root).as_posix(),
        "mode": stat.S_IMODE(facts.st_mode),
        "time": facts.st_mtime_ns,
    }
    if path.is_symlink():
        return {**entry, "kind": "link", "target": str(path.readlink())}
    if path.is_dir():
        return {**entry, "kind": "folder"}
    if _is_private(entry):
        return {**entry, "kind": "file", "secret": vault.put_secret(path.read_bytes())}
    return {**entry, "kind": "file", "sha256": _stored(path, vault)}


def _is_private(entry: Mapping[str, Any]) -> bool:
    return not entry["mode"] & 0o077


def _stored(path: Path, vault: Vault) -> str:
    with path.open("rb") as file:
        is_database = file.read(len(SQLITE)) == SQLITE
    if not is_database:
        return vault.put_file(path)
    with tempfile.TemporaryDirectory() as scratch:  # a copy as of one moment, with what is in its log
        copy = Path(scratch) / path.name
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        return vault.put_file(copy)


def _write(target: Path, entry: Mapping[str, Any], vault: Vault) -> None:
    if ".." in Path(entry["path"]).parts or Path(entry["path"]).is_absolute():
        raise BackupError(
            f"{entry['path']}: not a path in a workspace; this backup was not made by `churn backup`"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry["kind"] == "link":
        target.symlink_to(entry["target"])
        return
    if entry["kind"] == "folder":
        target.mkdir(exist_ok=True)
    elif "secret" in entry:
        target.touch(mode=0o600)
        target.write_bytes(vault.get_secret(entry["secret"]))
    else:
        vault.get_file(entry["sha256"], target)
    target.chmod(entry["mode"] | (0o700 if entry["kind"] == "folder" else 0))
    os.utime(target, ns=(entry["time"], entry["time"]))


def _move_paths(root: Path, former: str, present: str) -> None:
    if former == present:
        return
    for name in PATHS:
        for file in root.rglob(name):
            content = json.loads(file.read_text(encoding="utf-8"))
            path = str(content.get("path", ""))
            if path.startswith(f"{former}/"):
                content["path"] = present + path.removeprefix(former)
                write_atomically(file, json.dumps(content, indent=1))


def _exchange(new: Path, place: Path) -> None:
    old = new.with_name(f"{new.name}.replaced")
    if place.exists() or place.is_symlink():
        place.rename(old)
    if new.exists() or new.is_symlink():
        new.rename(place)

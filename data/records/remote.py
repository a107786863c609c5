"""Versions of the records in a store that other machines reach too, in folders named as on this machine.

A folder has its manifest only when all other files are there. Since the folder's name is the manifest's
sha256, a version that is there is never written again. Old ones stay until customers are erased.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from core.errors import DataError
from core.workspace import Workspace, fresh_directory
from data.config import DataConfig
from data.records.versions import versions

Progress = Callable[[str], None]
VERSION = re.compile("[0-9a-f]{64}")
"""The name of a version's folder."""


def publish(config: DataConfig, files: Workspace, progress: Progress = lambda message: None) -> bool:
    """Copy the current version to `data.store`; False without such a store, or when it is there already.

    Raises DataError, after which it may be repeated, when the store cannot be written.
    """
    if config.store is None:
        return False
    folder = files.data.resolve()
    manifest = folder / files.manifest.name
    with _errors(config.store):
        store, root = url_to_fs(config.store)
        place = f"{root}/{folder.name.partition('.')[0]}"
        store.invalidate_cache()
        if store.exists(f"{place}/{manifest.name}"):
            return False
        progress(f"copying the records to {_shown(config.store)}")
        others = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != manifest]
        for path in [*others, manifest]:
            _copy(store, path, f"{place}/{path.relative_to(folder).as_posix()}")
    return True


def withdraw(config: DataConfig, files: Workspace) -> int:
    """Delete the versions in `data.store` that this workspace does not have, after an erasure: they may have
    rows of customers who were erased. How many there were.

    Raises DataError, after which it may be repeated, when the store cannot be written.
    """
    if config.store is None:
        return 0
    present = {version.sha256 for version in versions(files)}
    with _errors(config.store):
        store, root = url_to_fs(config.store)
        store.invalidate_cache()
        places = store.ls(root, detail=False) if store.exists(root) else []
        named = {place.rstrip("/").rpartition("/")[2]: place for place in places}
        old = [place for name, place in named.items() if VERSION.fullmatch(name) and name not in present]
        for place in old:
            if store.exists(manifest := f"{place}/{files.manifest.name}"):
                store.rm_file(manifest)  # first: after an interruption no version looks complete
            store.rm(place, recursive=True)
    return len(old)


def fetch(config: DataConfig, files: Workspace, sha256: str) -> Path:
    """Copy the version whose manifest has this sha256 from `data.store` beside the current one; its folder.

    Raises DataError when the store does not have it, or returns other bytes.
    """
    if config.store is None:
        raise DataError("data.store: not set; give the URI to which versions of the records are copied")
    with _errors(config.store), fresh_directory(files.data) as fresh:
        store, root = url_to_fs(config.store)
        place = f"{root}/{sha256}"
        store.invalidate_cache()
        for path in store.find(place):
            target = fresh / path.removeprefix(f"{place}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(path, str(target))
        manifest = fresh / files.manifest.name
        if not manifest.is_file() or hashlib.sha256(manifest.read_bytes()).hexdigest() != sha256:
            raise DataError(
                f"data.store {_shown(config.store)}: has no version {sha256[:12]}; look at its names"
            )
        folder = fresh.with_name(sha256)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    return folder


def _copy(store: Any, path: Path, target: str) -> None:
    if "file" in (store.protocol if isinstance(store.protocol, tuple) else (store.protocol,)):
        store.makedirs(target.rpartition("/")[0], exist_ok=True)  # an object store has no folders
    store.put_file(str(path), target)
    if store.info(target)["size"] != path.stat().st_size:
        raise OSError(f"{path.name} has another size there")


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]  # s3fs lets it through

    try:
        yield
    except (OSError, ValueError, ImportError, BotoCoreError) as error:
        line = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(f"data.store {_shown(uri)}: {line}; get access, or correct the address") from None


def _shown(uri: str) -> str:
    """The address without a password."""
    return re.sub(r"//[^/@]*@", "//", uri)

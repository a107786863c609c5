"""Versions of the records in a store that other machines reach too, in folders named as on this machine.

A folder has its manifest only when all other files are there. Since the folder's name is the manifest's
sha256, a version that is there is never written again. Old ones stay until a customer in them is erased.
"""

import hashlib
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from fsspec.core import url_to_fs

from core.addresses import masked
from core.errors import DataError
from core.objects import put_file, store_errors
from core.workspace import Workspace, fresh_directory
from data.config import DataConfig

Progress = Callable[[str], None]
SHA256_DIGITS = 64


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
        progress(f"copying the records to {masked(config.store)}")
        others = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != manifest]
        for path in [*others, manifest]:
            put_file(store, path, f"{place}/{path.relative_to(folder).as_posix()}")
    return True


def fetch(config: DataConfig, files: Workspace, sha256: str) -> Path:
    """Copy the version whose manifest has this sha256 from `data.store` beside the current one; its folder.

    Raises DataError when the store does not have it, or returns other bytes.
    """
    with fresh_directory(files.data) as fresh:
        download(config, sha256, fresh)
        manifest = fresh / files.manifest.name
        if not manifest.is_file() or hashlib.sha256(manifest.read_bytes()).hexdigest() != sha256:
            raise DataError(
                f"data.store: {masked(str(config.store))}: has no version {sha256[:12]}; look at its names"
            )
        folder = fresh.with_name(sha256)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    return folder


def download(config: DataConfig, sha256: str, folder: Path) -> None:
    """Copy all files of a version into `folder`. Raises DataError when the store cannot be read."""
    if config.store is None:
        raise DataError("data.store: not set; give the URI to which versions of the records are copied")
    with _errors(config.store):
        store, root = url_to_fs(config.store)
        store.invalidate_cache()
        for path in store.find(f"{root}/{sha256}"):
            target = folder / path.removeprefix(f"{root}/{sha256}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(path, str(target))


def stored(config: DataConfig) -> list[str]:
    """The versions in `data.store`, also incomplete ones; none without such a store."""
    if config.store is None:
        return []
    with _errors(config.store):
        store, root = url_to_fs(config.store)
        store.invalidate_cache()
        names = {path.removeprefix(f"{root}/").partition("/")[0] for path in store.find(root)}
    return sorted(name for name in names if len(name) == SHA256_DIGITS)


def remove(config: DataConfig, files: Workspace, sha256: str) -> None:
    """Remove a version, its manifest first: what an interruption leaves is no complete version."""
    if config.store is not None:
        with _errors(config.store):
            store, root = url_to_fs(config.store)
            found = store.find(f"{root}/{sha256}")
            for path in sorted(found, key=lambda path: not path.endswith(f"/{files.manifest.name}")):
                store.rm_file(path)


def _errors(uri: str) -> AbstractContextManager[None]:
    return store_errors("data.store", uri, DataError)

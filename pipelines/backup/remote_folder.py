"""All objects below a URI of fsspec, such as the store of models and the versions of the records on S3."""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from core.objects import put_file, store_errors
from pipelines.backup.vault import BackupError, Vault


def save_folder(key: str, uri: str, vault: Vault) -> dict[str, str]:
    """Path below the URI -> sha256. `key` is the setting with the URI, for messages."""
    with store_errors(key, uri, BackupError), tempfile.TemporaryDirectory() as scratch:
        store, root = url_to_fs(uri)
        store.invalidate_cache()
        saved, copy = {}, Path(scratch) / "object"
        for path in sorted(store.find(root)):
            store.get_file(path, str(copy))
            saved[path[len(str(root).rstrip("/")) + 1 :]] = vault.put_file(copy)
        return saved


def load_folder(key: str, uri: str, saved: Mapping[str, str], vault: Vault) -> int:
    """Write the objects that are missing or have other content; return how many are there now.

    Objects that were not saved stay: nothing in these stores is ever changed under its name.
    """
    with store_errors(key, uri, BackupError), tempfile.TemporaryDirectory() as scratch:
        store, root = url_to_fs(uri)
        store.invalidate_cache()
        copy = Path(scratch) / "object"
        for path, digest in saved.items():
            target = f"{str(root).rstrip('/')}/{path}"
            if _digest(store, target) != digest:
                vault.get_file(digest, copy)
                put_file(store, copy, target)
    return len(saved)


def _digest(store: Any, path: str) -> str | None:
    """The sha256 of the object; None when there is none."""
    if not store.exists(path):
        return None
    with store.open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

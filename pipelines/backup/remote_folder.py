"""All objects below a URI of fsspec, such as the store of models and the versions of the records on S3."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from pipelines.backup.vault import Vault, store_errors


def save_folder(key: str, uri: str, vault: Vault) -> dict[str, str]:
    """Path below the URI -> sha256. `key` is the setting with the URI, for messages."""
    with store_errors(key, shown(uri)), tempfile.TemporaryDirectory() as scratch:
        store, root = url_to_fs(uri)
        store.invalidate_cache()
        saved, copy = {}, Path(scratch) / "object"
        for path in sorted(store.find(root)):
            store.get_file(path, str(copy))
            saved[path[len(str(root).rstrip("/")) + 1 :]] = vault.put_file(copy)
        return saved


def load_folder(key: str, uri: str, saved: Mapping[str, str], vault: Vault) -> int:
    """Write the objects that are missing or have another size or content; return how many are there now.

    Objects that were not saved stay: nothing in these stores is ever changed under its name.
    """
    with store_errors(key, shown(uri)), tempfile.TemporaryDirectory() as scratch:
        store, root = url_to_fs(uri)
        store.invalidate_cache()
        copy = Path(scratch) / "object"
        for path, digest in saved.items():
            vault.get_file(digest, copy)
            target = f"{str(root).rstrip('/')}/{path}"
            if not _is_equal(store, target, copy):
                _make_folder(store, target)
                store.put_file(str(copy), target)
    return len(saved)


def shown(uri: str) -> str:
    """The address without a password."""
    return re.sub(r"//[^/@]*@", "//", uri)


def _is_equal(store: Any, target: str, copy: Path) -> bool:
    return bool(store.exists(target)) and bool(store.cat_file(target) == copy.read_bytes())


def _make_folder(store: Any, target: str) -> None:
    protocol = store.protocol
    if "file" in ((protocol,) if isinstance(protocol, str) else protocol):  # an object store has no folders
        store.makedirs(target.rpartition("/")[0], exist_ok=True)

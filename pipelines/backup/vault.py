"""The files of all backups: objects named by the sha256 of their content, and a manifest for each backup.

An object that is there already is not written again, so a backup costs what has changed. A manifest is
written last: an interrupted backup leaves objects, and no backup.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fsspec.core import url_to_fs

from core.addresses import masked
from core.errors import ChurnError
from core.objects import is_local, store_errors

NONCE_BYTES = 12


class BackupError(ChurnError):
    """A backup cannot be made or restored."""


class Vault:
    """The store of backups at one address."""

    def __init__(self, uri: str, key: str | None) -> None:
        """`key`: 64 hexadecimal digits, or None where no secrets are read or written.

        Raises BackupError for an address that cannot be used, or another key.
        """
        self.uri = uri.rstrip("/")
        self._key = None if key is None else _key(key)
        with self._errors():
            self._files, root = url_to_fs(self.uri)
            self._root = str(root).rstrip("/")
            self._files.invalidate_cache()
            self._known = {path.rpartition("/")[2] for path in self._files.find(f"{self._root}/objects")}
        self.written_bytes = 0

    @property
    def shown(self) -> str:
        """The address without a password."""
        return masked(self.uri)

    def put(self, content: bytes) -> str:
        """Store the content; its sha256."""
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._known:
            with self._errors():
                self._write(self._place(digest), content)
            self._known.add(digest)
            self.written_bytes += len(content)
        return digest

    def put_file(self, file: Path) -> str:
        """As `put`, of a file of any size. The content is that of the file at one moment only if no process
        writes to it meanwhile."""
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest not in self._known:
            with self._errors():
                self._upload(file, self._place(digest))
            self._known.add(digest)
            self.written_bytes += file.stat().st_size
        return digest

    def put_secret(self, content: bytes) -> str:
        """As `put`, encrypted by AES-256-GCM. Raises BackupError without a key."""
        nonce = os.urandom(NONCE_BYTES)
        return self.put(nonce + AESGCM(self._needed_key()).encrypt(nonce, content, None))

    def get(self, digest: str) -> bytes:
        """The content. Raises BackupError when it is missing or has another sha256."""
        with self._errors():
            content = bytes(self._files.cat_file(self._place(digest)))
        if hashlib.sha256(content).hexdigest() != digest:
            raise BackupError(f"{self.shown}: object {digest[:12]} is damaged; restore another backup")
        return content

    def get_file(self, digest: str, target: Path) -> None:
        """As `get`, into a new file of any size."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            self._files.get_file(self._place(digest), str(target))
        with target.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
                raise BackupError(f"{self.shown}: object {digest[:12]} is damaged; restore another backup")

    def get_secret(self, digest: str) -> bytes:
        """As `get`, decrypted. Raises BackupError without the key that encrypted it."""
        sealed = self.get(digest)
        try:
            return AESGCM(self._needed_key()).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
        except InvalidTag:
            raise BackupError(
                "backup.key_env: not the key by which this backup is encrypted; export that one"
            ) from None

    def write_manifest(self, name: str, content: Mapping[str, Any]) -> None:
        text = json.dumps(content, indent=1, sort_keys=True)
        with self._errors():
            self._write(f"{self._root}/backups/{name}.json", text.encode())

    def names(self) -> list[str]:
        """The backups that are there, the newest last."""
        with self._errors():
            found = self._files.find(f"{self._root}/backups")
        return sorted(
            path.rpartition("/")[2].removesuffix(".json") for path in found if path.endswith(".json")
        )

    def manifest(self, name: str | None) -> dict[str, Any]:
        """The manifest of this backup, or of the newest one. Raises BackupError when there is none."""
        names = self.names()
        if not names or (name is not None and name not in names):
            known = ", ".join(names[-5:]) or "none"
            raise BackupError(f"{self.shown}: no backup {name or ''}; there are {known}")
        with self._errors():
            return dict(json.loads(self._files.cat_file(f"{self._root}/backups/{name or names[-1]}.json")))

    def _place(self, digest: str) -> str:
        return f"{self._root}/objects/{digest[:2]}/{digest}"

    def _write(self, target: str, content: bytes) -> None:
        if is_local(self._files):
            partial = Path(f"{target}.part")
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            partial.replace(target)
        else:  # an object store shows an object as a whole
            self._files.pipe_file(target, content)

    def _upload(self, file: Path, target: str) -> None:
        if is_local(self._files):
            partial = Path(f"{target}.part")
            partial.parent.mkdir(parents=True, exist_ok=True)
            self._files.put_file(str(file), str(partial))
            partial.replace(target)
        else:
            self._files.put_file(str(file), target)

    def _needed_key(self) -> bytes:
        if self._key is None:
            raise BackupError(
                "backup.key_env: its variable is not set; export 64 digits: openssl rand -hex 32"
            )
        return self._key

    def _errors(self) -> AbstractContextManager[None]:
        return store_errors("backup.store", self.uri, BackupError)


def _key(text: str) -> bytes:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise BackupError("backup.key_env: its variable needs 64 hexadecimal digits: openssl rand -hex 32")
    return bytes.fromhex(text)

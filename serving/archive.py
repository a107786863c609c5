"""The archive that a server loads: bytes that were read and checked once.

A check of a file is no statement about the bytes that another process reads from it later. So the bytes are
read once, checked, and stored in memory; each TorchServe gets a private copy of them at each start
(serving/torchserve/server.py).
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from core.errors import ServingError


@dataclass(frozen=True)
class ModelArchive:
    path: Path
    """The file that was read, for messages and records. Nothing is loaded from it again."""
    content: bytes = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def version(self) -> str:
        """The model version in the archive's manifest: TorchServe finds a model's sizes by name and version.

        Raises ServingError when the bytes are not a model archive.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(self.content)) as content:
                manifest = json.loads(content.read("MAR-INF/MANIFEST.json"))
            return str(manifest["model"]["modelVersion"])
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError, RecursionError):
            raise ServingError(f"{self.path}: not a model archive; package the model again") from None

    def copy_into(self, folder: Path) -> Path:
        """Write the bytes into `folder`, which is made with mode 700; return the path of the file."""
        folder.mkdir(mode=0o700)
        copy = folder / self.path.name
        with os.fdopen(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(self.content)
        return copy


Archive = Path | ModelArchive
"""A file that is not read yet, or bytes that were read and checked."""

Reader = Callable[[Path], ModelArchive]
"""Reads an archive to serve it. Raises ChurnError when it must not be served."""


def read_archive(path: Path) -> ModelArchive:
    """Read an archive without a check. `churn serve` uses a reader that verifies the signature
    (pipelines/live.py). Raises ServingError.
    """
    try:
        return ModelArchive(path.absolute(), path.read_bytes())
    except OSError as error:
        raise ServingError(f"{path}: {error.strerror}; package a model first") from None

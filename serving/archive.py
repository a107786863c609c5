"""What a server loads: an archive's bytes as they were read and checked once, whatever becomes of the file.

A check of a file says nothing about the bytes that another process reads from it a moment later. So the bytes
are read once, checked, and held here; each TorchServe gets a private copy of them
(serving/torchserve/server.py), at its first start and at each further one.
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
    """Where it came from, for people and records; nothing is loaded from there."""
    content: bytes = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def version(self) -> str:
        """The model version in the archive's manifest: TorchServe finds a model's sizes by name and version.

        Raises ServingError when these bytes are no model archive.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(self.content)) as content:
                manifest = json.loads(content.read("MAR-INF/MANIFEST.json"))
            return str(manifest["model"]["modelVersion"])
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError, RecursionError):
            raise ServingError(f"{self.path}: not a model archive; package the model again") from None

    def copy_into(self, folder: Path) -> Path:
        """Write the bytes into `folder`, which is made with mode 700, and give the file's path."""
        folder.mkdir(mode=0o700)
        copy = folder / self.path.name
        with os.fdopen(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(self.content)
        return copy


Archive = Path | ModelArchive
"""A file that is still to be read and checked, or bytes that have been."""

Reader = Callable[[Path], ModelArchive]
"""Reads an archive to serve it. Raises ChurnError when it must not be served."""


def read_archive(path: Path) -> ModelArchive:
    """Unchecked: `churn serve` gives its servers a reader that verifies the signature (pipelines/live.py)."""
    try:
        return ModelArchive(path.absolute(), path.read_bytes())
    except OSError as error:
        raise ServingError(f"{path}: {error.strerror}; package a model first") from None

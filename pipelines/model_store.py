"""Where models that may be deployed lie: folders that appear whole and never change."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.core import url_to_fs

from core.errors import ChurnError, ConfigError, PackagingError

KEY = "rollout.store"

Files = Mapping[str, bytes]
"""Path below the folder -> content."""


class ModelStore:
    """A folder on this machine, or any URI that fsspec knows (s3://, gs://, abfs://, file://).

    Raises ConfigError for an address of no known kind.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        with _reaching(self.shown):
            try:
                self._files, root = url_to_fs(self.uri)
            except (ValueError, ImportError) as error:
                raise ConfigError(f"{KEY}: {self.shown}: {_line(error)}; give a path or a URI") from None
        self._root = str(root).rstrip("/")
        self.local = Path(self._root) if "file" in _protocols(self._files) else None
        """The folder, where it is one of this machine."""

    @property
    def shown(self) -> str:
        """The address without passwords."""
        return re.sub(r"//[^/@]*@", "//", self.uri)

    def address(self, name: str) -> str:
        """The address that a server loads: a path on this machine, else a URI."""
        return str(self.local / name) if self.local is not None else f"{self.uri}/{name}"

    def read(self, name: str, paths: Iterable[str]) -> dict[str, bytes]:
        """These files of the folder `name`. Raises PackagingError when one of them cannot be read."""
        with _reaching(self.shown):
            return {path: bytes(self._files.cat_file(f"{self._root}/{name}/{path}")) for path in paths}

    def put(self, name: str, files: Files) -> bool:
        """Have `files` in the folder `name`; False when they were there already, byte for byte.

        What was written has been read back when this returns. When it raises (PackagingError), nothing that
        it wrote is left. Other content under that name is never touched: that is refused.
        """
        with _reaching(self.shown):
            there = self._held(name)
            strange = [path for path, content in there.items() if files.get(path) != content]
            if strange:
                raise PackagingError(
                    f"{self.shown}/{name}/{strange[0]}: is not what was deployed under this name; find out"
                    " who changed it, then remove the folder"
                )
            missing = {path: content for path, content in files.items() if path not in there}
            if missing and self.local is not None:
                self._appear(self.local, name, files)
            elif missing:
                self._upload(name, missing)
        return bool(missing)

    def _held(self, name: str) -> dict[str, bytes]:
        folder = f"{self._root}/{name}"
        self._files.invalidate_cache()  # another process may have written since
        found = [path for path in self._files.find(folder) if not path.endswith("/")]
        return {
            str(PurePosixPath(path).relative_to(folder)): bytes(self._files.cat_file(path)) for path in found
        }

    def _appear(self, root: Path, name: str, files: Files) -> None:
        """On a disk: written beside, synced, read back, and renamed, so that no reader sees a part of it."""
        root.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".deploying-", dir=root))
        try:
            for path, content in files.items():
                target = scratch / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                _same(target.read_bytes(), content, f"{self.shown}/{name}/{path}")
            scratch.chmod(0o755)
            target = root / name
            if target.is_dir():  # held less than all: what a copy by hand has left
                shutil.rmtree(target)
            scratch.rename(target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise

    def _upload(self, name: str, files: Files) -> None:
        """To a store of objects, each of which appears whole. The name is published after all are there."""
        written: list[str] = []
        try:
            for path, content in files.items():
                target = f"{self._root}/{name}/{path}"
                written.append(target)
                # no makedirs: s3fs would make a bucket of a misspelt name
                self._files.pipe_file(target, content)
            self._files.invalidate_cache()
            for path, content in files.items():
                _same(
                    self._files.cat_file(f"{self._root}/{name}/{path}"),
                    content,
                    f"{self.shown}/{name}/{path}",
                )
        except BaseException:
            self._take_back(written)
            raise

    def _take_back(self, written: list[str]) -> None:
        for target in written:
            try:
                self._files.rm_file(target)
            except _unreachable():  # not written after all, or the reason why we are here
                continue


def _same(found: bytes, content: bytes, where: str) -> None:
    if found != content:
        raise PackagingError(f"{where}: the store gave back other bytes than it was given; check the store")


@contextmanager
def _reaching(shown: str) -> Iterator[None]:
    """What file systems raise, as one line."""
    try:
        yield
    except ChurnError:
        raise
    except _unreachable() as error:
        raise PackagingError(
            f"{KEY}: {shown}: {_line(error)}; make room, ask for access, or choose another store"
        ) from None


def _unreachable() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]  # s3fs lets it through

    return (OSError, BotoCoreError)


def _line(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split()).rstrip(".") or type(error).__name__


def _protocols(files: Any) -> tuple[str, ...]:
    protocol = files.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)

"""The store of models that may be deployed: folders that appear as a whole and never change."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath

from fsspec.core import url_to_fs

from core.addresses import masked
from core.errors import ConfigError, PackagingError
from core.objects import is_local, reason, store_errors, store_failures
from pipelines.context import Stages

KEY = "rollout.store"

Files = Mapping[str, bytes]
"""Path below the folder -> content."""


def packed_path(settings: Stages) -> str:
    """The archive's path below the folder of its version, in the layout that KServe mounts."""
    return f"model-store/{settings.serving.model_name}.mar"


class ModelStore:
    """A folder on this machine, or a URI that fsspec supports (s3://, gs://, abfs://, file://).

    Raises ConfigError for an address of another kind.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        with self._errors():
            try:
                self._files, root = url_to_fs(self.uri)
            except (ValueError, ImportError) as error:
                raise ConfigError(f"{KEY}: {self.shown}: {reason(error)}; give a path or a URI") from None
        self._root = str(root).rstrip("/")
        self.local = Path(self._root) if is_local(self._files) else None
        """The folder, if the store is on this machine."""

    @property
    def shown(self) -> str:
        """The address without passwords."""
        return masked(self.uri)

    def address(self, name: str) -> str:
        """The address that a server loads: a path on this machine, else a URI."""
        return str(self.local / name) if self.local is not None else f"{self.uri}/{name}"

    def read(self, name: str, paths: Iterable[str]) -> dict[str, bytes]:
        """These files of the folder `name`. Raises PackagingError when one of them cannot be read."""
        with self._errors():
            return {path: bytes(self._files.cat_file(f"{self._root}/{name}/{path}")) for path in paths}

    def put(self, name: str, files: Files) -> bool:
        """Writes `files` into the folder `name`; False when it contains them already, byte for byte.

        Everything that was written has been read back when this returns. Raises PackagingError, after
        removing what was written; also where the folder has other content, which is never changed.
        """
        with self._errors():
            there = self._content(name)
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

    def _content(self, name: str) -> dict[str, bytes]:
        folder = f"{self._root}/{name}"
        self._files.invalidate_cache()  # another process may have written since
        found = [path for path in self._files.find(folder) if not path.endswith("/")]
        return {
            str(PurePosixPath(path).relative_to(folder)): bytes(self._files.cat_file(path)) for path in found
        }

    def _appear(self, root: Path, name: str, files: Files) -> None:
        """On a disk: a temporary folder is written, synced, read back and renamed: no reader sees a part."""
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
                _check_equal(target.read_bytes(), content, f"{self.shown}/{name}/{path}")
            scratch.chmod(0o755)
            target = root / name
            if target.is_dir():  # incomplete, for example after a copy by hand
                shutil.rmtree(target)
            scratch.rename(target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise

    def _upload(self, name: str, files: Files) -> None:
        """To an object store, where each object appears as a whole."""
        written: list[str] = []
        try:
            for path, content in files.items():
                target = f"{self._root}/{name}/{path}"
                written.append(target)
                # no makedirs: s3fs would make a bucket of a misspelt name
                self._files.pipe_file(target, content)
            self._files.invalidate_cache()
            for path, content in files.items():
                _check_equal(
                    self._files.cat_file(f"{self._root}/{name}/{path}"),
                    content,
                    f"{self.shown}/{name}/{path}",
                )
        except BaseException:
            self._remove(written)
            raise

    def _remove(self, written: list[str]) -> None:
        for target in written:
            try:
                self._files.rm_file(target)
            except store_failures():  # it was not written, or the store is store_failures
                continue

    def _errors(self) -> AbstractContextManager[None]:
        return store_errors(KEY, self.uri, PackagingError)


def _check_equal(found: bytes, content: bytes, where: str) -> None:
    if found != content:
        raise PackagingError(f"{where}: the store returned other bytes than were written; check the store")

"""The folders that the executors and this process share: the records, and the parts of one build."""

import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from core.errors import FeatureError
from features.spark.config import SparkConfig


@dataclass(frozen=True)
class Exchange:
    """Where the executors read the records and write snapshots, and how this process gets these."""

    records: str
    """Path or URI of the folder with the records' parts, for Spark."""
    _root: str
    _scratch: Path
    _store: AbstractFileSystem | None
    """The file system of `_root` when it is not this machine's."""

    def target(self, number: int) -> str:
        """Where the executors write the snapshot with this number; a path or URI for Spark."""
        return f"{self._root}/{number}"

    def fetch(self, number: int) -> list[Path]:
        """The files of a snapshot, on this machine."""
        here = self._scratch / str(number)
        if self._store is not None:
            here.mkdir(parents=True)
            self._store.invalidate_cache()
            for path in self._store.find(self.target(number)):
                if path.endswith(".parquet"):
                    self._store.get_file(path, str(here / path.rpartition("/")[2]))
        return sorted(here.glob("*.parquet"))

    def discard(self, number: int) -> None:
        """Delete the files of a snapshot, which nothing reads any more."""
        shutil.rmtree(self._scratch / str(number), ignore_errors=True)
        if self._store is not None:
            self._store.rm(self.target(number), recursive=True)


@contextmanager
def open_exchange(config: SparkConfig, records: Sequence[Path], scratch: Path) -> Iterator[Exchange]:
    """The places by the settings. A folder in `exchange` is removed at the end, also after an error.

    `records`: the parts in the workspace. Raises FeatureError when the store of `exchange` cannot be used.
    """
    folder = records[0].resolve().parent
    version = folder.parent.name.partition(".")[0]  # as data/records/remote.py names it
    theirs = f"file://{folder}" if config.records is None else f"{config.records}/{version}/{folder.name}"
    if config.exchange is None:
        yield Exchange(theirs, f"file://{scratch.resolve()}", scratch, None)
        return
    root = f"{config.exchange.rstrip('/')}/features-{secrets.token_hex(8)}"
    try:
        store, _ = url_to_fs(config.exchange)
    except (ValueError, ImportError) as error:
        raise FeatureError(f"features.spark.exchange: {error}; correct the address") from None
    try:
        yield Exchange(theirs, root, scratch, store)
    except OSError as error:
        raise FeatureError(f"features.spark.exchange: {error}; get access, or correct the address") from None
    finally:
        if store.exists(root):
            store.rm(root, recursive=True)

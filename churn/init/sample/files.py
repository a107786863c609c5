"""Finds the files of a source, and recognises kind and compression by their first bytes."""

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.core import url_to_fs

from core.errors import DataError

MOST_FILES = 100
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".dat", ".tab", ".psv")


@dataclass(frozen=True)
class Files:
    """The files of a source: one file, all files of a pattern, or all files below a folder."""

    uri: str
    """As the user wrote it."""
    filesystem: Any
    path: str
    """The URI within the file system."""
    paths: list[str]
    """At least one, sorted."""

    @property
    def is_folder(self) -> bool:
        return len(self.paths) > 1 or self.paths[0] != self.path

    @property
    def sampled(self) -> list[str]:
        """At most MOST_FILES of the files: the first one, and others evenly distributed over the rest."""
        return [self.paths[0], *_spread(self.paths[1:], MOST_FILES - 1)]

    def uri_for(self, kind: str) -> str:
        """The URI with which ingest finds the same files: the user's own, or a pattern for a folder."""
        if not self.is_folder or any(sign in self.uri for sign in "*["):
            return self.uri
        ending = _ending(self.paths[0])
        if ending in (f".{kind}", f".{kind}".upper()):
            return self.uri
        depth = max(len(PurePosixPath(p).relative_to(self.path.rstrip("/")).parts) for p in self.paths)
        pattern = f"*{ending}" if ending else "part-*"
        return "/".join([self.uri.rstrip("/"), *["*"] * (depth - 1), pattern])

    def modified(self) -> datetime | None:
        """When the newest file was changed; None if the file system does not report it."""
        moments: list[datetime] = []
        for path in (self.paths[0], self.paths[-1]):
            try:
                moment = self.filesystem.modified(path)
            except (NotImplementedError, OSError, AttributeError, KeyError, TypeError, ValueError):
                return None
            moments.append(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        return max(moments)


def find_files(uri: str) -> Files:
    """Find the files, without hidden files and markers such as _SUCCESS.

    Raises DataError if there is none, or if they are of several kinds.
    """
    filesystem, path = url_to_fs(uri)
    if any(sign in path for sign in "*[") and not filesystem.exists(path):
        paths = sorted(filesystem.glob(path))
    elif filesystem.isdir(path):
        paths = sorted(filesystem.find(path))
        inside = [PurePosixPath(p).relative_to(path.rstrip("/")).parts for p in paths]
        paths = [
            p for p, parts in zip(paths, inside, strict=True) if not any(part[0] in "._" for part in parts)
        ]
    elif filesystem.exists(path):
        return Files(uri, filesystem, path, [path])
    else:
        raise DataError(f"{uri}: no such file; give the path or URI of a table")
    tables = [p for p in paths if _ending(p) in (".parquet", *TEXT_ENDINGS)]
    endings = {_ending(p) for p in tables}
    if len(endings) > 1:
        raise DataError(
            f"{uri}: contains {', '.join(sorted(endings))} files; name one kind with a pattern: '*.csv'"
        )
    if not paths:
        raise DataError(f"{uri}: contains no file; give a table or a folder of Parquet or CSV files")
    return Files(uri, filesystem, path, tables or paths)


def kind_of(files: Files, start: bytes) -> str:
    """The kind by the content of the file, not by its name. Raises DataError for a kind that is not read."""
    path = files.paths[0]
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"PK\x03\x04"):
        with files.filesystem.open(path, "rb") as file:
            try:
                names = zipfile.ZipFile(file).namelist()
            except zipfile.BadZipFile:
                raise DataError(f"{path}: a damaged zip archive; copy the file again") from None
        return "excel" if "[Content_Types].xml" in names else "csv"
    if start.startswith(b"\xd0\xcf\x11\xe0"):
        raise DataError(f"{path}: an Excel file of the old kind (.xls); save it as .xlsx or CSV")
    if start.startswith(b"ORC") or start.startswith(b"Obj\x01"):
        raise DataError(f"{path}: an ORC or Avro file; save it as Parquet or CSV")
    if start.startswith(b"SQLite format 3"):
        raise DataError(f"{path}: an SQLite database; export the table as CSV")
    return "csv"


def compression_of(start: bytes) -> str | None:
    if start.startswith(b"PK\x03\x04"):
        return "zip"
    return next((name for magic, name in MAGIC.items() if start.startswith(magic)), None)


def stem(uri: str) -> str:
    """A name for the workspace and the service: small letters, digits and underscores."""
    name = PurePosixPath(uri.split("?")[0].rstrip("/*")).name if "://" in uri else Path(uri.rstrip("/*")).name
    name = re.sub(r"[^a-z0-9]+", "_", name.split(".")[0].lower()).strip("_")
    return name if name and not name[0].isdigit() else f"table_{name}".rstrip("_")


def _ending(path: str) -> str:
    """The last ending, without that of a compression."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    if suffixes and suffixes[-1] in (".gz", ".bz2", ".xz", ".zst", ".zip", ".snappy"):
        suffixes = suffixes[:-1]
    return suffixes[-1] if suffixes else ""


def _spread(paths: Sequence[str], most: int) -> list[str]:
    """At most `most` of the paths, evenly distributed, including the last one."""
    if len(paths) <= most:
        return list(paths)
    return [paths[round(i * (len(paths) - 1) / (most - 1))] for i in range(most)]

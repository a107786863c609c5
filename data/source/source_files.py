"""Finds the files of a source, and the partition columns in their paths."""

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import unquote

from fsspec.core import url_to_fs

from core.errors import DataError
from data.config import TableSource
from data.source.readers import public_uri

ENDINGS = {
    "csv": ("csv", "tsv", "txt", "tab", "psv", "dat"),
    "parquet": ("parquet", "parq", "pq"),
    "excel": ("xlsx", "xlsm", "xlsb", "xls", "ods"),
}
PACKED = ("gz", "gzip", "bz2", "xz", "zst", "zip")
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class SourceFile:
    """One file, and the partition columns of the `name=value` folders directly above it."""

    filesystem: Any
    path: str
    partitions: dict[str, str | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def ending(self) -> str:
        """csv, parquet ...: in lower case, without the ending of a compression."""
        parts = self.name.casefold().split(".")[1:]
        if len(parts) > 1 and parts[-1] in PACKED:
            parts.pop()
        return parts[-1] if parts else ""

    def open(self) -> BinaryIO:
        return self.filesystem.open(self.path, "rb")  # type: ignore[no-any-return]


def source_files(source: TableSource) -> list[SourceFile]:
    """The file, all files that match a pattern, or the tables below a folder, sorted by name.

    Hidden files and markers (`.part-0.crc`, `_SUCCESS`) and the contents of such folders are ignored.
    Raises DataError when there is no file, or when a folder contains tables of several kinds.
    """
    filesystem, path = url_to_fs(source.uri, **source.options.get("storage_options", {}))
    if any(sign in path for sign in "*[") and not filesystem.exists(path):
        paths = _matching(filesystem, path, source)
    elif source.uri.endswith("/") or _is_folder(filesystem, path):
        paths = _tables_below(filesystem, path, source)
    else:
        return [_file(filesystem, path)]
    if not paths:
        raise DataError(f"{public_uri(source)}: no {source.kind} file is there; correct data.source.uri")
    return [_file(filesystem, path) for path in sorted(paths)]


def _is_folder(filesystem: Any, path: str) -> bool:
    protocols = {filesystem.protocol} if isinstance(filesystem.protocol, str) else {*filesystem.protocol}
    return not protocols & {"http", "https"} and bool(filesystem.isdir(path))


def _matching(filesystem: Any, pattern: str, source: TableSource) -> list[str]:
    base = re.split(r"[*\[]", pattern)[0].rpartition("/")[0]
    found: list[str] = []
    for path, about in filesystem.glob(pattern, detail=True).items():
        if not _is_visible(path, base):
            continue
        found += _tables_below(filesystem, path, source) if about["type"] == "directory" else [path]
    return found


def _tables_below(filesystem: Any, folder: str, source: TableSource) -> list[str]:
    visible = [path for path in filesystem.find(folder) if _is_visible(path, folder)]
    kinds = {path: _kind(path) for path in visible}
    ours = [path for path in visible if kinds[path] == source.kind]
    if others := sorted(path for path in visible if kinds[path] not in (source.kind, None)):
        raise DataError(f"{public_uri(source)}: {_other_kinds(source, ours, others[0], kinds)}")
    # Hive and similar tools write files without an ending
    return ours or [path for path in visible if "." not in PurePosixPath(path).name]


def _other_kinds(source: TableSource, ours: list[str], other: str, kinds: dict[str, str | None]) -> str:
    name = PurePosixPath(other).name
    if not ours:
        return f"no {source.kind} file is there, but {name}; set data.source.kind to {kinds[other]}"
    pattern = f"{public_uri(source).rstrip('/')}/*{PurePosixPath(ours[0]).suffix}"
    return f"beside {source.kind} files there is {name}; give data.source.uri a pattern such as {pattern}"


def _kind(path: str) -> str | None:
    ending = SourceFile(None, path).ending
    return next((kind for kind, endings in ENDINGS.items() if ending in endings), None)


def _is_visible(path: str, base: str) -> bool:
    below = path.removeprefix(base).split("/")
    return not any(part.startswith((".", "_")) for part in below if "=" not in part)


def _file(filesystem: Any, path: str) -> SourceFile:
    return SourceFile(filesystem, path, _partitions(path))


def _partitions(path: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for folder in reversed(path.split("/")[:-1]):
        name, equals, value = folder.partition("=")
        if not equals or not name:
            break
        found[unquote(name)] = None if value == HIVE_NULL else unquote(value)
    return dict(reversed(found.items()))

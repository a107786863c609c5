"""Recognises the kind of a file by its first bytes, not by its name, and decompresses it."""

import bz2
import gzip
import io
import lzma
import zipfile
from typing import Any, BinaryIO

import pyarrow as pa

from core.errors import DataError

FIRST_BYTES = 512
PARQUET, WORKBOOK, TEXT = "a Parquet file", "an Excel workbook", "text"
ZIP = b"PK\x03\x04"
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
OFFICE_MEMBERS = (b"[Content_Types].xml", b"xl/", b"_rels/", b"docProps/", b"mimetypeapplication/vnd.oasis")
"""The zip archive of a workbook begins with one of these names, after 30 bytes."""
FIRST_BYTES_OF = {
    b"PAR1": PARQUET,
    b"PARE": "an encrypted Parquet file",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": WORKBOOK,
    b"ARROW1": "an Arrow file",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"SQLite format 3\x00": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF document",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
}
REMEDY = {
    PARQUET: "set data.source.kind to parquet",
    WORKBOOK: "set data.source.kind to excel, or save it as CSV",
    TEXT: "set data.source.kind to csv",
}


def packing(first: bytes) -> str | None:
    """The compression of a file with these first bytes: gzip, bz2, xz, zstd, zip, or None."""
    if first.startswith(ZIP):
        return "zip"
    return next((name for magic, name in PACKED.items() if first.startswith(magic)), None)


def unpacked(file: Any, packed: str | None) -> Any:
    """The decompressed bytes of `file`, as a stream. Raises ValueError for an archive of several files."""
    if packed == "gzip":
        return gzip.GzipFile(fileobj=file)
    if packed == "bz2":
        return bz2.BZ2File(file)
    if packed == "xz":
        return lzma.LZMAFile(file)
    if packed == "zstd":
        return pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
    if packed == "zip":
        archive = zipfile.ZipFile(file)
        members = [m for m in archive.namelist() if not m.endswith("/") and not m.startswith("__MACOSX/")]
        if len(members) != 1:
            raise ValueError(f"the archive holds {len(members)} files, not one: {', '.join(members[:5])}")
        return archive.open(members[0])
    return file


def refuse_other_kind(first: bytes, kind: str, uri: str) -> None:
    """Raise DataError, with the actual kind of the file, when it is not of `kind`."""
    found = kind_of(first)
    if found in (None, _NAMES[kind]):
        return
    remedy = REMEDY.get(found, "convert it to CSV or Parquet")
    raise DataError(f"{uri}: this is {found}, not {_NAMES[kind]}; {remedy}")


_NAMES = {"csv": TEXT, "parquet": PARQUET, "excel": WORKBOOK}


def kind_of(first: bytes) -> str | None:
    """The kind of a file in words; None when its first bytes do not determine it."""
    for magic, name in FIRST_BYTES_OF.items():
        if first.startswith(magic):
            return name
    if first.startswith(ZIP):
        return WORKBOOK if first[30:].startswith(OFFICE_MEMBERS) else "a zip archive"
    if first.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith((b"<!doctype html", b"<html")):
        return "a web page (HTML)"
    if (packed := packing(first)) is not None:
        return f"a {packed} file"
    if first and b"\x00" not in first:
        return TEXT
    return None


class Prefixed(io.RawIOBase):
    """A stream that returns bytes read earlier, then the rest of the stream."""

    def __init__(self, first: bytes, rest: BinaryIO) -> None:
        self._first, self._rest = first, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._first[: len(buffer)] or self._rest.read(len(buffer))
        self._first = self._first[len(content) :]
        buffer[: len(content)] = content
        return len(content)

"""Reads a sample of text files: the beginning, and stretches from further positions of a long file."""

import bz2
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from churn.init.belief import Notes
from churn.init.dialect import Dialect, find_dialect, find_encoding
from churn.init.sample.files import Files, compression_of
from churn.init.sample.sample import MOST_ROWS, Sample, without_footer
from core.errors import DataError

HEAD_BYTES = 48 << 20
STRETCH_BYTES = 4 << 20
STRETCHES = (0.4, 0.7, 1.0)
"""Positions at which stretches of a longer file end, as shares of its size."""


def read_text(files: Files, start: bytes, notes: Notes) -> Sample:
    """Read the files as CSV, with the dialect of the first one; `start` are its first bytes."""
    packed = compression_of(start)
    head, whole = _head(files, files.paths[0], packed, HEAD_BYTES)
    encoding = find_encoding(head, notes)
    text = _decoded(head, encoding)
    dialect = find_dialect(text, encoding, notes)
    parts = [_parsed(text if whole else _cut(text), dialect)]
    names = list(parts[0].columns)
    looked = f"{len(head) / 1e6:,.1f} MB"
    size = None if packed else files.filesystem.size(files.paths[0])
    if not whole and size:
        parts += [_parsed(t, dialect, names) for t in _stretches(files, size, encoding)]
        looked += f" and stretches of {STRETCH_BYTES >> 20} MB of {size / 1e6:,.0f} MB"
    else:
        looked = f"all {len(parts[0]):,} rows ({looked})" if whole else f"the first {looked} of unpacked text"
    if len(files.paths) > 1:
        chosen = files.sampled[1:]
        budget = max(1 << 20, (HEAD_BYTES - len(head)) // len(chosen))
        all_seen = len(chosen) == len(files.paths) - 1
        for path in chosen:
            head, ended = _head(files, path, packed, budget)
            text = _decoded(head, encoding)
            parts.append(_parsed(text if ended else _cut(text), dialect))
            if list(parts[-1].columns) != names:
                raise DataError(
                    f"{path}: its columns differ from those of {files.paths[0]}; give files of one table"
                )
            all_seen &= ended
        looked = f"{len(chosen) + 1} of {len(files.paths)} files"
        looked += "" if all_seen else ", of each the beginning"
        whole &= all_seen
    frame = pd.concat(parts, ignore_index=True)
    whole &= len(frame) <= MOST_ROWS
    frame = without_footer(frame, notes) if whole else frame
    frame = frame if len(frame) <= MOST_ROWS else frame.iloc[_picked(len(frame))]
    return Sample(
        files.uri,
        "csv",
        pa.table({n: pa.array(frame[n], pa.string(), from_pandas=True) for n in names}),
        whole,
        looked,
        rows=len(frame) if whole else None,
        options=_options(dialect, names),
        descriptions=dict(zip(names, dialect.descriptions, strict=False)),
    )


def _picked(rows: int) -> Any:
    """MOST_ROWS positions: two thirds from the beginning, the rest from the end."""
    head = MOST_ROWS * 2 // 3
    return [*range(head), *range(rows - (MOST_ROWS - head), rows)]


def _options(dialect: Dialect, names: Sequence[str]) -> dict[str, Any]:
    """`data.source.options`; only what differs from the defaults."""
    options: dict[str, Any] = {}
    if dialect.delimiter != ",":
        options["sep"] = dialect.delimiter
    if dialect.encoding not in ("utf-8", "utf-8-sig"):
        options["encoding"] = dialect.encoding
    if dialect.skipped_lines:
        options["skiprows"] = dialect.skipped_lines
    if not dialect.header:
        options |= {"header": None, "names": list(names)}
    if dialect.trailing:
        options["index_col"] = False
    return options


def _head(files: Files, path: str, packed: str | None, budget: int) -> tuple[bytes, bool]:
    """At most `budget` first bytes, unpacked, and whether these are all bytes."""
    with files.filesystem.open(path, "rb") as file:
        stream: Any = file
        if packed == "gzip":
            stream = gzip.GzipFile(fileobj=file)
        elif packed == "bz2":
            stream = bz2.BZ2File(file)
        elif packed == "xz":
            stream = lzma.LZMAFile(file)  # noqa: SIM115
        elif packed == "zstd":
            stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
        elif packed == "zip":
            archive = zipfile.ZipFile(file)
            inside = [
                i for i in archive.infolist() if not i.is_dir() and not i.filename.startswith("__MACOSX")
            ]
            if len(inside) != 1:
                raise DataError(f"{path}: a zip archive of {len(inside)} files; unpack it and give a folder")
            stream = archive.open(inside[0])
        chunks, left = [], budget + 1
        while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
            chunks.append(chunk)
            left -= len(chunk)
    content = b"".join(chunks)
    return content[:budget], len(content) <= budget


def _stretches(files: Files, size: int, encoding: str) -> list[str]:
    """Whole lines from later positions of the first file, which is not packed."""
    found = []
    with files.filesystem.open(files.paths[0], "rb") as file:
        for share in STRETCHES:
            begin = max(HEAD_BYTES, int(size * share) - STRETCH_BYTES)
            file.seek(begin - begin % 2)
            text = _decoded(file.read(STRETCH_BYTES), encoding)
            first = text.find("\n") + 1
            found.append(text[first:] if share == 1.0 else _cut(text[first:]))
    return [text for text in found if text]


def _decoded(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding, errors="ignore")
    except LookupError:
        raise DataError(f"--answer encoding={encoding}: no such encoding; one is latin-1") from None


def _cut(text: str) -> str:
    """The text without its last line, which may be incomplete."""
    return text[: text.rfind("\n") + 1] or text


def _parsed(text: str, dialect: Dialect, names: Sequence[str] | None = None) -> pd.DataFrame:
    """The cells as text. `names` are given for a stretch, which has no header."""
    options: dict[str, Any] = {"sep": dialect.delimiter, "dtype": "string", "keep_default_na": False}
    if names is not None:
        options |= {"header": None, "names": list(names)}
    else:
        options["skiprows"] = dialect.skipped_lines
        if not dialect.header:
            options["header"] = None
    if dialect.trailing:
        options["index_col"] = False
    options |= {"na_values": [""], "on_bad_lines": "skip"}
    try:
        frame: pd.DataFrame = pd.read_csv(io.StringIO(text), **options)
    except pd.errors.ParserError:  # the sample ends within a quoted cell
        frame = pd.read_csv(io.StringIO(text), engine="python", **options)
    if not isinstance(frame.index, pd.RangeIndex):
        raise DataError("the rows have more fields than the header has names; correct the header")
    if names is None and not dialect.header:
        frame.columns = pd.Index([f"column_{i + 1}" for i in range(frame.shape[1])])
    frame.columns = frame.columns.map(str)
    _refuse_doubled(text, dialect, frame)
    return frame


def _refuse_doubled(text: str, dialect: Dialect, frame: pd.DataFrame) -> None:
    """Raises DataError for two equal names; pandas renames the second one to `name.1`."""
    renamed = [str(n) for n in frame.columns if re.fullmatch(r".+\.\d+", str(n))]
    head = text.splitlines()[dialect.preamble] if dialect.header and text else ""
    for name in renamed:
        original = name.rsplit(".", 1)[0]
        if original in frame.columns and name not in head:
            raise DataError(f"two columns have the name {original!r}; rename one of them in the file")

"""Reads CSV files in chunks of rows. Every cell is the text as written; types are not inferred, and only
empty cells are missing.

The header and the first rows are checked first, with the same options. pandas silently renames a repeated
column, and uses the first field as an index where rows are longer than the header.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa

from core.errors import DataError
from data.config import TableSource
from data.source.content import FIRST_BYTES, WORKBOOK, Prefixed, kind_of, packing, refuse_other_kind, unpacked
from data.source.readers import (
    HashingReader,
    Wanted,
    data_errors,
    partitions_to_read,
    public_uri,
    reader_options,
    rows_a_chunk,
    sha256_of,
    with_partitions,
)
from data.source.source_files import SourceFile

HEAD_BYTES = 1 << 20
HEAD_ROWS = 20
SEPARATORS = {"tsv": "\t", "tab": "\t", "psv": "|"}
"""Separator by the ending of the file. The default is a comma; the options override both."""
SEPARATOR_NAMES = {"\t": "a tab"}


def read_csv(
    files: Sequence[SourceFile], source: TableSource, wanted: Wanted, digests: list[str] | None
) -> Iterator[pa.Table]:
    """Yield chunks of string columns. Each file's sha256 is appended to `digests` after its last chunk.

    Raises DataError for rows that do not fit the header.
    """
    uri = public_uri(source)
    for file in files:
        named = uri if len(files) == 1 else f"{uri}: {file.name}"
        with data_errors(named), file.open() as opened:
            hashing = HashingReader(opened)
            packed = io.BufferedReader(hashing, 1 << 20)
            if packing(packed.peek(FIRST_BYTES)) == "zip":  # read twice, because its index is at its end
                whole = sha256_of(opened) if digests is not None else ""
                opened.seek(0)
                yield from _tables(opened, file, source, wanted, named)
            else:
                yield from _tables(packed, file, source, wanted, named)
                whole = hashing.exhaust() if digests is not None else ""
            if digests is not None:
                digests.append(whole)


def _tables(
    stream: Any, file: SourceFile, source: TableSource, wanted: Wanted, uri: str
) -> Iterator[pa.Table]:
    """All columns are parsed, then the unneeded ones are dropped: with `usecols`, pandas would accept a row
    with too many fields."""
    options = {"keep_default_na": False, "na_values": [""], **reader_options(source)}
    options.pop("compression", None)  # it is recognised by the content
    if "delimiter" not in options:
        options.setdefault("sep", SEPARATORS.get(file.ending, ","))
    text, head = _text(stream, options, uri)
    layout = _layout(head, options, wanted, uri)
    partitions = partitions_to_read(file.partitions, layout.names, wanted)
    chosen = wanted.among([*layout.names, *partitions], uri)
    options.pop("index_col", None)
    rows = rows_a_chunk(layout.width)
    for frame in pd.read_csv(text, dtype="string[pyarrow]", chunksize=rows, **{**options, **layout.options}):
        _check_width(frame, layout)
        columns = {
            name: pa.array(frame.iloc[:, i], pa.string(), from_pandas=True)
            for i, name in chosen.items()
            if i < len(layout.names)
        }
        yield with_partitions(pa.table(columns), partitions, len(frame))


def _text(stream: Any, options: dict[str, Any], uri: str) -> tuple[BinaryIO, bytes]:
    """The unpacked stream, and its first bytes."""
    first = _peek(stream)
    packed = packing(first)
    if kind_of(first) == WORKBOOK:
        refuse_other_kind(first, "csv", uri)
    plain: Any = unpacked(stream, packed)
    head = _read_fully(plain, HEAD_BYTES)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) and "encoding" not in options:
        raise DataError(f"{uri}: this is UTF-16 text; set data.source.options.encoding to utf-16")
    refuse_other_kind(head[:FIRST_BYTES], "csv", uri)
    return io.BufferedReader(Prefixed(head, plain), 1 << 20), head


def _peek(stream: Any) -> bytes:
    if hasattr(stream, "peek"):
        return bytes(stream.peek(FIRST_BYTES)[:FIRST_BYTES])
    first: bytes = stream.read(FIRST_BYTES)
    stream.seek(0)
    return first


def _read_fully(stream: Any, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (content := stream.read(size)):
        parts.append(content)
        size -= len(content)
    return b"".join(parts)


@dataclass(frozen=True)
class _Layout:
    names: list[str]
    """Names as written in the header."""
    extra: int = 0
    """Empty fields at the end of each row, beyond the header."""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def width(self) -> int:
        return len(self.names) + self.extra


def _layout(head: bytes, options: dict[str, Any], wanted: Wanted, uri: str) -> "_Layout":
    """Raises DataError for rows that are longer than the header."""
    sample = _sample(head, options)
    header = options.get("header", "infer")
    longer = 0 if isinstance(sample.index, pd.RangeIndex) else sample.index.nlevels
    names = [str(name) for name in sample.columns]
    replaced: dict[str, Any] = {}
    if "names" not in options and (header == "infer" or isinstance(header, int)):
        row = 0 if header == "infer" else int(header)
        names = _header(head, options, row, len(names) + longer, names)
        replaced = {"header": row}
    hint = _separator_hint(names, options, wanted)
    if longer and hint:
        raise DataError(f"{uri}: the rows have more fields than the header; {hint}")
    if longer and not (options.get("index_col") is False and replaced):
        raise DataError(f"{uri}: {_longer_rows(sample, longer)}")
    if hint and not {*wanted.names} <= {name.strip() for name in names}:
        raise DataError(f"{uri}: the header is one column, {names[0]!r}; {hint}")
    if replaced:
        replaced["names"] = list(range(len(names) + longer))
    return _Layout(names, longer, replaced)


def _sample(head: bytes, options: dict[str, Any]) -> pd.DataFrame:
    options = {name: value for name, value in options.items() if name != "index_col"}
    rows = min(HEAD_ROWS, options.pop("nrows", HEAD_ROWS))
    sample: pd.DataFrame = pd.read_csv(
        io.BytesIO(head), dtype=str, nrows=rows, encoding_errors="replace", **options
    )
    return sample


def _header(head: bytes, options: dict[str, Any], row: int, width: int, renamed: list[str]) -> list[str]:
    """The names as written; pandas would rename repeated ones. A column without a name is `Unnamed: 3`."""
    plain = {**options, "header": None, "names": range(width), "index_col": False, "nrows": row + 1}
    try:
        frame = pd.read_csv(io.BytesIO(head), dtype=str, encoding_errors="replace", **plain)
    except pd.errors.ParserError:  # the lines above the header are longer
        return renamed
    written = frame.iloc[row, : len(renamed)].tolist()
    return [w if isinstance(w, str) and w.strip() else r for w, r in zip(written, renamed, strict=True)]


def _longer_rows(sample: pd.DataFrame, longer: int) -> str:
    last = sample.iloc[:, -1].fillna("").str.strip()
    if longer == 1 and (last == "").all():
        return (
            "every row ends in a separator that the header lacks; set data.source.options.index_col to false"
        )
    return (
        "the rows have more fields than the header has names; correct data.source.options.sep, or put quotes"
        " around cells that hold the separator"
    )


def _separator_hint(names: list[str], options: dict[str, Any], wanted: Wanted) -> str:
    """A question to the user when another separator probably divides the header; else empty."""
    if len(names) != 1:
        return ""
    for separator in (";", "\t", "|", ","):
        parts = [part.strip(" \"'") for part in names[0].split(separator)]
        if len(parts) > 1 and separator != options.get("sep", options.get("delimiter")):
            shown = SEPARATOR_NAMES.get(separator, f"`{separator}`")
            value = "\\t" if separator == "\t" else separator
            return f'is the separator {shown}? Then set data.source.options.sep to "{value}"'
    return ""


def _check_width(frame: pd.DataFrame, layout: _Layout) -> None:
    """Raises ValueError where a field beyond the header is not empty."""
    if not isinstance(frame.index, pd.RangeIndex):
        raise ValueError("the rows have more fields than the header has names")
    for i in range(len(layout.names), layout.width):
        full = frame.iloc[:, i].fillna("").str.strip() != ""
        if full.any():
            row = int(frame.index[full.to_numpy(dtype=bool)][0]) + 1
            raise ValueError(f"row {row} has more fields than the header has names")

"""A bounded part of a file, folder or URI as a table: its beginning, and stretches from further on."""

import bz2
import gzip
import io
import lzma
import re
import uuid
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from churn.init.belief import Notes
from churn.init.dialect import Dialect, find_dialect, find_encoding, footer_of
from core.errors import DataError
from data.cell.notation import Notation
from data.source.excel_files import cell_text
from data.source.readers import data_errors

HEAD_BYTES = 48 << 20
STRETCH_BYTES = 4 << 20
STRETCHES = (0.4, 0.7, 1.0)
"""Where in a longer file further stretches end, as shares of its size."""
MOST_ROWS = 300_000
MOST_FILES = 100
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".dat", ".tab", ".psv")


@dataclass
class Sample:
    """What was looked at, and how the whole is to be read."""

    uri: str
    kind: str
    """csv, parquet or excel."""
    table: pa.Table
    whole: bool
    looked_at: str
    rows: int | None = None
    """Of the whole source, where that is known without reading it."""
    options: dict[str, Any] = field(default_factory=dict)
    sheet: str | None = None
    modified: datetime | None = None
    descriptions: dict[str, str] = field(default_factory=dict)
    """Of columns, where a second header line has them."""


def take_sample(uri: str, notes: Notes) -> Sample:
    """Raises DataError where there is nothing, or nothing that can be read as a table."""
    with data_errors(uri):
        filesystem, path = url_to_fs(uri)
        paths = _files(filesystem, path, uri)
        with filesystem.open(paths[0], "rb") as file:
            start = file.read(512)
        if not start.strip():
            raise DataError(f"{uri}: the file is empty; give a table with rows")
        kind = _kind(start, paths[0], filesystem)
        folder = len(paths) > 1 or paths[0] != path
        if kind == "parquet":
            sample = _parquet(filesystem, path if folder else paths[0], paths, uri, notes)
        elif kind == "excel":
            sample = _excel(filesystem, paths[0], uri, notes)
        else:
            sample = _text(filesystem, paths, start, uri, notes)
        sample.uri = _pattern(uri, path, paths, sample.kind) if folder else uri
        sample.modified = _modified(filesystem, paths)
    stripped = [name.strip() for name in sample.table.column_names]
    if len(set(stripped)) == len(stripped):  # ingest strips them as well
        sample.table = sample.table.rename_columns(stripped)
        sample.descriptions = {name.strip(): text for name, text in sample.descriptions.items()}
    if sample.table.num_rows == 0:
        raise DataError(f"{uri}: the table has no rows; give one that has")
    return sample


def _files(filesystem: Any, path: str, uri: str) -> list[str]:
    """The file, all files of a pattern, or all below a folder; without hidden ones and markers."""
    if any(sign in path for sign in "*[") and not filesystem.exists(path):
        paths = sorted(filesystem.glob(path))
    elif filesystem.isdir(path):
        paths = sorted(filesystem.find(path))
        inside = [PurePosixPath(p).relative_to(path.rstrip("/")).parts for p in paths]
        paths = [
            p for p, parts in zip(paths, inside, strict=True) if not any(part[0] in "._" for part in parts)
        ]
    else:
        if not filesystem.exists(path):
            raise DataError(f"{uri}: no such file; give the path or URI of a table")
        return [path]
    known = [p for p in paths if _ending(p) in (".parquet", *TEXT_ENDINGS)]
    endings = {_ending(p) for p in known}
    if len(endings) > 1:
        raise DataError(
            f"{uri}: holds {', '.join(sorted(endings))} files; name one kind with a pattern such as '*.csv'"
        )
    if not (known or paths):
        raise DataError(f"{uri}: no file is there; give a table or a folder of Parquet or CSV files")
    return known or paths


def _ending(path: str) -> str:
    """Without the ending of a compression."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    if suffixes and suffixes[-1] in (".gz", ".bz2", ".xz", ".zst", ".zip", ".snappy"):
        suffixes = suffixes[:-1]
    return suffixes[-1] if suffixes else ""


def _pattern(uri: str, path: str, paths: Sequence[str], kind: str) -> str:
    """A folder by its name where ingest finds the same files in it, else a pattern."""
    if any(sign in uri for sign in "*["):
        return uri
    ending = _ending(paths[0])
    if ending in (f".{kind}", f".{kind}".upper()):
        return uri
    depth = max(len(PurePosixPath(p).relative_to(path.rstrip("/")).parts) for p in paths)
    return "/".join([uri.rstrip("/"), *["*"] * (depth - 1), f"*{ending}" if ending else "part-*"])


def _kind(start: bytes, path: str, filesystem: Any) -> str:
    """By what the file holds, whatever its name says."""
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"PK\x03\x04"):
        with filesystem.open(path, "rb") as file:
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


def _compression(start: bytes, path: str) -> str | None:
    if start.startswith(b"PK\x03\x04"):
        return "zip"
    return next((name for magic, name in MAGIC.items() if start.startswith(magic)), None)


def _text(filesystem: Any, paths: Sequence[str], start: bytes, uri: str, notes: Notes) -> Sample:
    packed = _compression(start, paths[0])
    head, whole = _head(filesystem, paths[0], packed, HEAD_BYTES)
    encoding = find_encoding(head, notes)
    text = _decoded(head, encoding)
    dialect = find_dialect(text, encoding, notes)
    parts = [_parsed(text if whole else _cut(text), dialect)]
    names = list(parts[0].columns)
    looked = f"{len(head) / 1e6:,.1f} MB"
    size = None if packed else filesystem.size(paths[0])
    if not whole and size:
        parts += [_parsed(t, dialect, names) for t in _stretches(filesystem, paths[0], size, encoding)]
        looked += f" and stretches of {STRETCH_BYTES >> 20} MB of {size / 1e6:,.0f} MB"
    else:
        looked = f"all {len(parts[0]):,} rows ({looked})" if whole else f"the first {looked} of unpacked text"
    if len(paths) > 1:
        chosen = _spread(paths[1:], MOST_FILES - 1)
        budget = max(1 << 20, (HEAD_BYTES - len(head)) // len(chosen))
        all_seen = len(chosen) == len(paths) - 1
        for path in chosen:
            head, ended = _head(filesystem, path, packed, budget)
            text = _decoded(head, encoding)
            parts.append(_parsed(text if ended else _cut(text), dialect))
            if list(parts[-1].columns) != names:
                raise DataError(f"{path}: other columns than {paths[0]}; give files of one table")
            all_seen &= ended
        looked = f"{len(chosen) + 1} of {len(paths)} files" + ("" if all_seen else ", of each the beginning")
        whole &= all_seen
    frame = pd.concat(parts, ignore_index=True)
    whole &= len(frame) <= MOST_ROWS
    frame = _without_footer(frame, notes) if whole else frame
    options = _options(dialect, names)
    descriptions = dict(zip(names, dialect.descriptions, strict=False)) if dialect.descriptions else {}
    frame = frame if len(frame) <= MOST_ROWS else frame.iloc[_picked(len(frame))]
    table = pa.table({n: pa.array(frame[n], pa.string(), from_pandas=True) for n in names})
    rows = len(frame) if whole else None
    return Sample(uri, "csv", table, whole, looked, rows, options, None, None, descriptions)


def _picked(rows: int) -> Any:
    """Two thirds from the beginning, the rest from the end."""
    head = MOST_ROWS * 2 // 3
    return [*range(head), *range(rows - (MOST_ROWS - head), rows)]


def _options(dialect: Dialect, names: Sequence[str]) -> dict[str, Any]:
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


def _head(filesystem: Any, path: str, packed: str | None, budget: int) -> tuple[bytes, bool]:
    """The first bytes, unpacked, and whether that is all."""
    with filesystem.open(path, "rb") as file:
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


def _stretches(filesystem: Any, path: str, size: int, encoding: str) -> list[str]:
    """Whole lines from further parts of a file that is not packed."""
    found = []
    with filesystem.open(path, "rb") as file:
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
        raise DataError(f"--answer encoding={encoding}: no such encoding; write it like latin-1") from None


def _cut(text: str) -> str:
    """Without the last line, which may be half of one."""
    return text[: text.rfind("\n") + 1] or text


def _parsed(text: str, dialect: Dialect, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Cells as text. `names` are given for a stretch, which has no header."""
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
    except pd.errors.ParserError:  # a quote that is open where the sample ends
        frame = pd.read_csv(io.StringIO(text), engine="python", **options)
    if not isinstance(frame.index, pd.RangeIndex):
        raise DataError("the rows have more fields than the header has names; correct the header")
    if names is None and not dialect.header:
        frame.columns = pd.Index([f"column_{i + 1}" for i in range(frame.shape[1])])
    frame.columns = frame.columns.map(str)
    _refuse_doubled(text, dialect, frame)
    return frame


def _refuse_doubled(text: str, dialect: Dialect, frame: pd.DataFrame) -> None:
    """pandas renames the second of two equal names to `name.1`."""
    renamed = [str(n) for n in frame.columns if re.fullmatch(r".+\.\d+", str(n))]
    head = text.splitlines()[dialect.preamble] if dialect.header and text else ""
    for name in renamed:
        original = name.rsplit(".", 1)[0]
        if original in frame.columns and name not in head:
            raise DataError(f"two columns have the name {original!r}; rename one of them in the file")


def _without_footer(frame: pd.DataFrame, notes: Notes) -> pd.DataFrame:
    filled = [float(frame[name].iloc[:-5].notna().mean()) for name in frame.columns]
    ends = 0
    while ends < min(5, len(frame) - 20):
        row = [None if pd.isna(cell) else str(cell) for cell in frame.iloc[len(frame) - 1 - ends]]
        if not footer_of(row, filled):
            break
        ends += 1
    if not ends:
        return frame
    words = next((str(c) for c in frame.iloc[-1] if not pd.isna(c)), "blanks")
    notes.found("last lines", f"{ends} set aside", f"{words!r}: a total, no record; ingest rejects it")
    return frame.iloc[: len(frame) - ends]


def _parquet(filesystem: Any, root: str, paths: Sequence[str], uri: str, notes: Notes) -> Sample:
    chosen = [paths[0], *_spread(paths[1:], MOST_FILES - 1)]
    tables, total, whole = [], 0, len(chosen) == len(paths)
    for path in chosen:
        with filesystem.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            total += parquet.metadata.num_rows
            budget = MOST_ROWS if len(chosen) == 1 else max(5_000, 2 * MOST_ROWS // len(chosen))
            table, complete = _groups(parquet, budget)
        whole &= complete
        tables.append(_with_partitions(_readable(table, notes), path, root))
    table = pa.concat_tables(tables, promote_options="permissive")
    looked = (
        f"{table.num_rows:,} rows of {len(chosen)} of {len(paths)} files"
        if len(paths) > 1
        else (f"all {total:,} rows" if whole else f"{table.num_rows:,} of {total:,} rows")
    )
    rows = total if len(chosen) == len(paths) else None
    return Sample(uri, "parquet", table, whole, looked, rows)


def _groups(parquet: Any, budget: int) -> tuple[pa.Table, bool]:
    """Rows from the first, the middle and the last row group, at most `budget`."""
    groups = parquet.metadata.num_row_groups
    if parquet.metadata.num_rows <= budget:
        return parquet.read(), True
    chosen = sorted({0, groups // 2, groups - 1})
    share = budget // len(chosen)
    batches: list[pa.RecordBatch] = []
    for group in chosen:
        left = share
        for batch in parquet.iter_batches(min(share, 65_536), row_groups=[group]):
            batches.append(batch.slice(0, left))
            left -= batch.num_rows
            if left <= 0:
                break
    return pa.Table.from_batches(batches), False


def _readable(table: pa.Table, notes: Notes) -> pa.Table:
    """Plain types only; nested columns are left out."""
    for name in list(table.column_names):
        column = table[name]
        kind = column.type
        if isinstance(kind, pa.BaseExtensionType):
            column, kind = (
                pa.chunked_array([c.storage for c in column.chunks], kind.storage_type),
                kind.storage_type,
            )
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        elif pa.types.is_fixed_size_binary(kind) and kind.byte_width == 16:
            texts = [None if v is None else str(uuid.UUID(bytes=v)) for v in column.to_pylist()]
            column = pa.chunked_array([pa.array(texts, pa.string())])
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            column = column.cast(pa.binary()).cast(pa.string())
        elif pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            column = column.cast(pa.string())
        elif pa.types.is_nested(kind) or pa.types.is_duration(kind) or pa.types.is_null(kind):
            notes.left_out[name] = f"its type is {kind}"
            table = table.drop_columns([name])
            continue
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _with_partitions(table: pa.Table, path: str, root: str) -> pa.Table:
    """The columns that stand only in a Hive path: `order_date=2023-01-01/`."""
    try:
        parts = PurePosixPath(path).relative_to(root.rstrip("/")).parts[:-1]
    except ValueError:
        return table
    for part in parts:
        name, equals, value = part.partition("=")
        if equals and name not in table.column_names:
            known = None if value == "__HIVE_DEFAULT_PARTITION__" else value
            table = table.append_column(name, pa.array([known] * table.num_rows, pa.string()))
    return table


def _excel(filesystem: Any, path: str, uri: str, notes: Notes) -> Sample:
    """The largest sheet. Raises DataError where the extra is missing."""
    try:
        from python_calamine import CalamineWorkbook
    except ImportError:
        raise DataError(
            f"{uri}: an Excel workbook; pip install 'churn-prediction[excel]', or save it as CSV"
        ) from None
    with filesystem.open(path, "rb") as file:
        book = CalamineWorkbook.from_filelike(io.BytesIO(file.read()))
    sheets = {name: _cells(book.get_sheet_by_name(name)) for name in book.sheet_names}
    filled = {name: sum(cell is not None for row in rows for cell in row) for name, rows in sheets.items()}
    if not any(filled.values()):
        raise DataError(f"{uri}: the workbook holds no cells; give one with a table")
    title = notes.answer("sheet", tuple(sheets)) or max(filled, key=lambda name: filled[name])
    if len(sheets) > 1:
        notes.found("sheet", title, f"the largest of {', '.join(sheets)}")
    rows = sheets[title]
    header = _excel_header(rows)
    if header:
        notes.found("header", f"row {header + 1}", f"{header} rows before it are filled less")
    placed = {i: name for i, name in enumerate(rows[header]) if name is not None}
    if len({name.strip() for name in placed.values()}) < len(placed):
        raise DataError(f"{uri}: two columns of sheet {title!r} have one name; rename one of them")
    body = [[row[i] if i < len(row) else None for i in placed] for row in rows[header + 1 :]]
    body = [row for row in body if any(cell is not None for cell in row)]
    frame = pd.DataFrame(body, columns=list(placed.values()), dtype="string")
    frame = _without_footer(frame, notes) if len(frame) > 25 else frame
    table = pa.table({str(n): pa.array(frame[n], pa.string(), from_pandas=True) for n in frame.columns})
    whole = len(rows) < MOST_ROWS
    looked = f"sheet {title!r}, " + (f"all {len(body):,} rows" if whole else f"its first {MOST_ROWS:,} rows")
    options = {"skiprows": header} if header else {}
    return Sample(uri, "excel", table, whole, looked, len(body) if whole else None, options, title)


def _cells(sheet: Any) -> list[list[str | None]]:
    """As ingest writes them as texts."""
    rows = sheet.to_python(skip_empty_area=False)[:MOST_ROWS]
    return [[cell_text(cell, Notation()) for cell in row] for row in rows]


def _excel_header(rows: Sequence[Sequence[str | None]]) -> int:
    """The first row that is filled as widely as most."""
    widths = [sum(cell is not None for cell in row) for row in rows[:200]]
    typical = sorted(widths)[len(widths) // 2]
    return next((i for i, width in enumerate(widths) if width >= max(1, typical * 0.8)), 0)


def _spread(paths: Sequence[str], most: int) -> list[str]:
    """At most so many, evenly over all, the last one among them."""
    if len(paths) <= most:
        return list(paths)
    return [paths[round(i * (len(paths) - 1) / (most - 1))] for i in range(most)]


def _modified(filesystem: Any, paths: Sequence[str]) -> datetime | None:
    """When the newest file was changed, where the file system knows it."""
    moments: list[datetime] = []
    for path in (paths[0], paths[-1]):
        try:
            moment = filesystem.modified(path)
        except (NotImplementedError, OSError, AttributeError, KeyError, TypeError, ValueError):
            return None
        moments.append(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return max(moments)


def stem(uri: str) -> str:
    """A name for the workspace and the service: small letters, digits and underscores."""
    name = PurePosixPath(uri.split("?")[0].rstrip("/*")).name if "://" in uri else Path(uri.rstrip("/*")).name
    name = re.sub(r"[^a-z0-9]+", "_", name.split(".")[0].lower()).strip("_")
    return name if name and not name[0].isdigit() else f"table_{name}".rstrip("_")

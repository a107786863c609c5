"""Reads sheets of Excel and OpenDocument workbooks. Each cell becomes text in the source's notation."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa

from core.errors import DataError
from data.cell.notation import EPOCHS, Notation
from data.config import TableSource
from data.source.content import FIRST_BYTES, refuse_other_kind
from data.source.readers import (
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

OPTIONS = ("header", "skiprows", "nrows")
"""Row numbers: the row of the names (from 0, after the skipped ones), rows to skip, rows to read."""


def read_excel(
    files: Sequence[SourceFile], source: TableSource, wanted: Wanted, digests: list[str] | None
) -> Iterator[pa.Table]:
    """Yield chunks of string columns. Each file's sha256 is appended to `digests` before its first chunk.

    Raises DataError for a file that is not a workbook, an ambiguous sheet, and options without effect.
    """
    uri = public_uri(source)
    for file in files:
        named = uri if len(files) == 1 else f"{uri}: {file.name}"
        with data_errors(named), file.open() as opened:
            first = opened.read(FIRST_BYTES)
            refuse_other_kind(first, "excel", named)
            digest = sha256_of(opened)
            if digests is not None:
                digests.append(digest)
            yield from _tables(_rows(opened, source, named), file, source, wanted, named)


def _tables(
    rows: Iterator[list[Any]], file: SourceFile, source: TableSource, wanted: Wanted, uri: str
) -> Iterator[pa.Table]:
    options = _options(source, uri)
    rows = islice(rows, options["skiprows"] + options["header"], None)
    header = next(rows, None)
    if header is None:
        raise DataError(f"{uri}: the sheet is empty; name another one in data.source.sheet")
    notation = Notation.of(source)
    names = [cell_text(cell, notation) or f"Unnamed: {i}" for i, cell in enumerate(header)]
    partitions = partitions_to_read(file.partitions, names, wanted)
    chosen = wanted.among([*names, *partitions], uri)
    rows = islice(rows, options["nrows"])
    while chunk := list(islice(rows, rows_a_chunk(len(names)))):
        full = [row for row in chunk if any(cell not in ("", None) for cell in row)]
        columns = {
            name: pa.array([cell_text(row[i], notation) for row in full], pa.string())
            for i, name in chosen.items()
            if i < len(names)
        }
        yield with_partitions(pa.table(columns), partitions, len(full))


def _options(source: TableSource, uri: str) -> dict[str, Any]:
    given = reader_options(source)
    for name, value in given.items():
        if name not in OPTIONS or not (isinstance(value, int) or value is None):
            raise DataError(
                f"{uri}: data.source.options.{name} has no effect on a workbook, which takes the numbers"
                f" {', '.join(OPTIONS)}; remove it"
            )
    return {name: given.get(name) or 0 for name in OPTIONS[:2]} | {"nrows": given.get("nrows")}


def _rows(opened: BinaryIO, source: TableSource, uri: str) -> Iterator[list[Any]]:
    try:
        from python_calamine import CalamineError, CalamineWorkbook, SheetVisibleEnum
    except ImportError:
        raise DataError(
            f"{uri}: workbooks need the package python-calamine: pip install 'churn-prediction[excel]'"
        ) from None
    try:
        book = CalamineWorkbook.from_filelike(opened)
        shown = [s.name for s in book.sheets_metadata if s.visible == SheetVisibleEnum.Visible]
        name = _sheet(source.sheet, book.sheet_names, shown, uri)
        return iter(book.get_sheet_by_name(name).to_python(skip_empty_area=False))
    except CalamineError as error:
        raise DataError(f"{uri}: cannot be read: {error}; open and save the workbook again") from None


def _sheet(requested: str | int | None, names: Sequence[str], shown: Sequence[str], uri: str) -> str:
    """The name of the sheet to read. Raises DataError, with the existing sheets, when it is ambiguous."""
    available = ", ".join(repr(name) for name in names)
    if requested is None:
        if len(shown) != 1:
            raise DataError(
                f"{uri}: the workbook has the sheets {available}; set data.source.sheet to one of them"
            )
        return shown[0]
    if isinstance(requested, str) and requested in names:
        return requested
    if isinstance(requested, int) and 0 <= requested < len(names):
        return names[requested]
    raise DataError(f"{uri}: no sheet {requested!r}; there are {available}; correct data.source.sheet")


def cell_text(cell: Any, notation: Notation) -> str | None:
    """The cell as text in this notation. Excel stores dates as dates, so they cannot be misread."""
    if cell is None or cell == "":
        return None
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        whole = cell.is_integer() and abs(cell) <= 2**53
        return str(int(cell)) if whole else repr(cell).replace(".", notation.decimal)
    if isinstance(cell, date):
        return _moment_text(cell, notation.dates)
    if isinstance(cell, time):
        return cell.isoformat()
    return str(cell)


def _moment_text(moment: date, dates: str) -> str:
    clock = isinstance(moment, datetime)
    if dates in EPOCHS:
        since = (
            datetime(moment.year, moment.month, moment.day) if not isinstance(moment, datetime) else moment
        )
        return str(int((since - datetime(1970, 1, 1)).total_seconds() * EPOCHS[dates]))
    if dates == "iso":
        return moment.isoformat(" ") if isinstance(moment, datetime) else moment.isoformat()
    order = {"day_first": "%d/%m/%Y", "month_first": "%m/%d/%Y"}.get(dates)
    if order is None:
        return moment.strftime(dates)
    return moment.strftime(f"{order} %H:%M:%S.%f" if clock else order)

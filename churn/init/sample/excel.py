"""Reads a sample of an Excel workbook: its largest sheet."""

import io
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from churn.init.belief import Notes
from churn.init.sample.files import Files
from churn.init.sample.sample import MOST_ROWS, Sample, without_footer
from core.errors import DataError
from data.cell.notation import Notation
from data.source.excel_files import cell_text


def read_excel(files: Files, notes: Notes) -> Sample:
    """Read the largest sheet. Raises DataError if the extra is not installed."""
    uri = files.uri
    try:
        from python_calamine import CalamineWorkbook
    except ImportError:
        raise DataError(
            f"{uri}: an Excel workbook; pip install 'churn-prediction[excel]', or save it as CSV"
        ) from None
    with files.filesystem.open(files.paths[0], "rb") as file:
        book = CalamineWorkbook.from_filelike(io.BytesIO(file.read()))
    sheets = {name: _cells(book.get_sheet_by_name(name)) for name in book.sheet_names}
    filled = {name: sum(cell is not None for row in rows for cell in row) for name, rows in sheets.items()}
    if not any(filled.values()):
        raise DataError(f"{uri}: the workbook has no cells; give one with a table")
    title = notes.answer("sheet", tuple(sheets)) or max(filled, key=lambda name: filled[name])
    if len(sheets) > 1:
        notes.found("sheet", title, f"the largest of {', '.join(sheets)}")
    rows = sheets[title]
    header = _excel_header(rows)
    if header:
        notes.found("header", f"row {header + 1}", f"the {header} rows before it have fewer cells")
    placed = {i: name for i, name in enumerate(rows[header]) if name is not None}
    if len({name.strip() for name in placed.values()}) < len(placed):
        raise DataError(f"{uri}: two columns of sheet {title!r} have the same name; rename one of them")
    body = [[row[i] if i < len(row) else None for i in placed] for row in rows[header + 1 :]]
    body = [row for row in body if any(cell is not None for cell in row)]
    frame = pd.DataFrame(body, columns=list(placed.values()), dtype="string")
    frame = without_footer(frame, notes) if len(frame) > 25 else frame
    table = pa.table({str(n): pa.array(frame[n], pa.string(), from_pandas=True) for n in frame.columns})
    whole = len(rows) < MOST_ROWS
    looked = f"sheet {title!r}, " + (f"all {len(body):,} rows" if whole else f"its first {MOST_ROWS:,} rows")
    options = {"skiprows": header} if header else {}
    return Sample(uri, "excel", table, whole, looked, len(body) if whole else None, options, title)


def _cells(sheet: Any) -> list[list[str | None]]:
    """The cells as texts, as ingest writes them."""
    rows = sheet.to_python(skip_empty_area=False)[:MOST_ROWS]
    return [[cell_text(cell, Notation()) for cell in row] for row in rows]


def _excel_header(rows: Sequence[Sequence[str | None]]) -> int:
    """The index of the first row that has about as many cells as most rows."""
    widths = [sum(cell is not None for cell in row) for row in rows[:200]]
    typical = sorted(widths)[len(widths) // 2]
    return next((i for i, width in enumerate(widths) if width >= max(1, typical * 0.8)), 0)

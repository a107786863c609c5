"""Excel workbooks as spreadsheet programs save them."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pytest

from core.errors import DataError
from data.cell import parse
from data.cell.notation import Notation
from data.source.sources import open_source
from support.data_tables import Configure

Book = Callable[..., Path]
pytest.importorskip("python_calamine", reason="pip install 'churn-prediction[excel]'")


@pytest.fixture
def book(tmp_path: Path) -> Book:
    def write(**sheets: list[list[Any]]) -> Path:
        made = openpyxl.Workbook()
        made.remove(made.active)
        for name, rows in sheets.items():
            sheet = made.create_sheet(name)
            for row in rows:
                sheet.append(row)
        path = tmp_path / "orders.xlsx"
        made.save(path)
        return path

    return write


HEADER = ["customer ", "when", "paid", "zip", None]
FIRST = [17850, datetime(2023, 4, 13, 8, 26), 12.5, "01067", "x"]
SECOND = [None, "NA", True, None, None]


def read(configure: Configure, path: Path, **source: Any) -> pa.Table:
    return pa.concat_tables(open_source(configure(path, kind="excel", **source)).chunks())


def test_cells_are_texts_as_a_csv_has_them(configure: Configure, book: Book) -> None:
    rows = read(configure, book(Orders=[HEADER, FIRST, [None] * 5, SECOND]), keep=["zip"]).to_pylist()
    assert rows == [
        {"customer": "17850", "when": "2023-04-13 08:26:00", "paid": "12.5", "zip": "01067"},
        {"customer": None, "when": "NA", "paid": "true", "zip": None},
    ]


@pytest.mark.parametrize("dates", ["iso", "day_first", "month_first", "epoch_ms", "%d.%m.%Y %H:%M"])
def test_dates_and_numbers_follow_the_notation(configure: Configure, book: Book, dates: str) -> None:
    table = read(configure, book(Orders=[HEADER, FIRST]), dates=dates, options={"decimal": ","})
    notation = Notation(decimal=",", dates=dates)
    assert str(parse.moments(table["when"], notation)[0]) == "2023-04-13 08:26:00+00:00"
    assert parse.numbers(table["paid"], notation).to_pylist() == [12.5]


def test_the_sheet_has_to_be_named_where_there_are_several(configure: Configure, book: Book) -> None:
    path = book(Notes=[["read me"]], Orders=[["Export of 2023"], HEADER, FIRST])
    with pytest.raises(DataError, match=r"has the sheets 'Notes', 'Orders'; set data.source.sheet"):
        read(configure, path)
    options = {"skiprows": 1}
    by_name = read(configure, path, sheet="Orders", options=options)
    assert by_name.num_rows == 1 and by_name.equals(read(configure, path, sheet=1, options=options))
    with pytest.raises(DataError, match="no sheet 'Order'; there are 'Notes', 'Orders'"):
        read(configure, path, sheet="Order")


def test_options_of_other_readers_are_refused(configure: Configure, book: Book) -> None:
    with pytest.raises(DataError, match=r"data.source.options.sep has no effect on a workbook"):
        read(configure, book(Orders=[HEADER, FIRST]), options={"sep": ";"})


def test_a_file_that_is_not_a_workbook_is_refused(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "x.xlsx").write_text("customer,when,paid\n")
    with pytest.raises(DataError, match=r"this is text, not an Excel workbook; set data.source.kind to csv"):
        read(configure, tmp_path / "x.xlsx")
    (tmp_path / "x.xlsx").write_bytes(b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml broken")
    with pytest.raises(DataError, match="cannot be read"):
        read(configure, tmp_path / "x.xlsx")

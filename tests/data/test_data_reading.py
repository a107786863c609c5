"""Files as other programs write them: which are read, which are ignored, and which are refused."""

import bz2
import gzip
import io
import lzma
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import DataError
from data.config import DataConfig
from data.source.sources import open_source
from support.data_tables import LOG, Configure

Refused = Callable[..., str]
ROWS = {"customer": ["ann", "bob"], "when": ["2024-01-01", "2024-01-02"], "paid": ["1", "2"]}
HEADER = "customer,when,paid\n"


def read(config: DataConfig, **arguments: Any) -> pa.Table:
    return pa.concat_tables(open_source(config, **arguments).chunks())


@pytest.fixture
def refused(configure: Configure) -> Refused:
    def run(table: str | Path, **source: Any) -> str:
        with pytest.raises(DataError) as error:
            read(configure(table, **source))
        assert "\n" not in str(error.value)
        return str(error.value)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "orders"
    made.mkdir()
    return made


def write(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**ROWS, **columns}), path)
    return path


def test_markers_and_hidden_files_of_spark_are_ignored(configure: Configure, folder: Path) -> None:
    for name in ("part-0.parquet", "part-1.parquet", "_temporary/0/part-9.parquet", ".hidden/x.parquet"):
        write(folder / name)
    for name in (".part-0.parquet.crc", "_SUCCESS", "_committed_1", "README.md"):
        (folder / name).write_bytes(b"crc\x00")
    assert read(configure(folder, kind="parquet")).num_rows == 4
    assert read(configure(folder / "*part*", kind="parquet")).num_rows == 4


def test_file_endings_are_not_case_sensitive(configure: Configure, folder: Path) -> None:
    for name in ("A.CSV", "b.csv", "c.Txt", "d.csv.GZ"):
        content = LOG.encode()
        (folder / name).write_bytes(gzip.compress(content) if name.endswith("GZ") else content)
    (folder / "e.tsv").write_text(LOG.replace(",", "\t"))
    assert read(configure(folder)).num_rows == 15


def test_files_without_an_ending_are_read_where_there_are_no_others(
    configure: Configure, folder: Path
) -> None:
    (folder / "000000_0").write_text(LOG)
    (folder / "000001_0").write_text(LOG)
    assert read(configure(folder)).num_rows == 6


def test_a_folder_with_tables_of_another_kind_is_not_read_in_part(refused: Refused, folder: Path) -> None:
    (folder / "a.csv").write_text(LOG)
    write(folder / "b.parquet")
    assert "beside csv files there is b.parquet; give data.source.uri a pattern such as" in refused(folder)
    (folder / "a.csv").unlink()
    assert "no csv file is there, but b.parquet; set data.source.kind to parquet" in refused(folder)


def test_an_unreadable_file_is_named(refused: Refused, folder: Path) -> None:
    write(folder / "a.parquet")
    (folder / "b.parquet").write_bytes(b"PAR1 no")
    assert "b.parquet: cannot be read" in refused(folder, kind="parquet")
    (folder / "c.csv").write_bytes(b"customer,when,paid\n\xff,x,1\n")
    (folder / "d.csv").write_text(LOG)
    assert "c.csv: not utf-8 text" in refused(folder / "*.csv")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_columns_of_hive_folders(configure: Configure, folder: Path, kind: str) -> None:
    for day in ("2023-01-01", "2023-01-02", "__HIVE_DEFAULT_PARTITION__"):
        place = folder / "country=D%20E" / f"when={day}"
        place.mkdir(parents=True)
        frame = pd.DataFrame({"customer": ["ann"], "paid": [1.5]})
        frame.to_parquet(place / "p.parquet") if kind == "parquet" else frame.to_csv(place / "p.csv")
    table = read(configure(folder, kind=kind, keep=["country"]))
    assert table["when"].to_pylist() == ["2023-01-01", "2023-01-02", None]
    assert set(table["country"].to_pylist()) == {"D E"}
    assert read(configure(folder / "*" / "*" / "*", kind=kind)).num_rows == 3


def test_identifiers_in_bytes_are_read_as_the_text_of_a_uuid(configure: Configure, folder: Path) -> None:
    ids = [uuid.UUID(int=7), None, uuid.uuid4()]
    raw = [None if i is None else i.bytes for i in ids]
    texts = [None if i is None else str(i) for i in ids]
    rest = {"when": ["2024-01-01"] * 3, "paid": [1.0] * 3}
    for kind in (pa.uuid(), pa.binary(16)):
        stored = pa.array(raw, pa.binary(16))
        column = pa.ExtensionArray.from_storage(pa.uuid(), stored) if kind == pa.uuid() else stored
        pq.write_table(pa.table({"customer": column, **rest}), folder / "t.parquet", row_group_size=2)
        assert read(configure(folder / "t.parquet", kind="parquet"))["customer"].to_pylist() == texts


def test_categories_and_large_texts_are_texts(configure: Configure, folder: Path) -> None:
    names = pa.array(["ann", "bob"])
    for column in (names.dictionary_encode(), names.cast(pa.large_string()), names.cast(pa.binary())):
        write(folder / "t.parquet", customer=column)
        assert read(configure(folder / "t.parquet", kind="parquet"))["customer"].to_pylist() == ["ann", "bob"]


def test_no_word_in_a_csv_is_missing_by_default(configure: Configure) -> None:
    table = read(configure(HEADER + "NA,None,n/a\n,,\n"))
    assert table.to_pylist() == [
        {"customer": "NA", "when": "None", "paid": "n/a"},
        dict.fromkeys(ROWS),
    ]


def test_two_columns_of_one_name_are_refused(refused: Refused, configure: Configure) -> None:
    assert "two columns have the name 'paid'" in refused("customer,when,paid,paid\nann,2024-01-01,1,2\n")
    assert "two columns have the name 'paid'" in refused("customer,when,paid,paid \nann,2024-01-01,1,2\n")
    unread = "customer,when,paid,note,note,\nann,2024-01-01,1,x,y,z\n"
    assert read(configure(unread)).to_pylist() == [{"customer": "ann", "when": "2024-01-01", "paid": "1"}]
    really = "customer,when,paid,paid.1\nann,2024-01-01,1,2\n"
    assert read(configure(really, keep=["paid.1"]))["paid.1"].to_pylist() == ["2"]


def test_blanks_around_names_are_ignored(configure: Configure, refused: Refused, folder: Path) -> None:
    spaced = " customer ,when,paid\u00a0\nann,2024-01-01,1\n"
    assert read(configure(spaced)).column_names == ["customer", "when", "paid"]
    as_written = {"user_id": " customer ", "timestamp": "when", "amount": "paid"}
    assert read(configure(spaced, columns=as_written)).column_names == [" customer ", "when", "paid"]
    pq.write_table(
        pa.table({"customer ": ["a"], "when": ["2024-01-01"], "paid": [1.0]}), folder / "t.parquet"
    )
    assert read(configure(folder / "t.parquet", kind="parquet")).column_names[0] == "customer"


def test_all_missing_columns_are_named_at_once(refused: Refused) -> None:
    message = refused("Customer,date,price\nann,2024-01-01,1\n", keep=["city"])
    for name in ("'customer' (did you mean 'Customer'?)", "'when'", "'paid'", "'city'"):
        assert f"no column {name}" in message


def test_a_separator_at_the_end_of_each_row(configure: Configure, refused: Refused) -> None:
    trailing = HEADER + "007,2024-01-01,1,\nbob,2024-01-02,2,\n"
    assert "set data.source.options.index_col to false" in refused(trailing)
    accepted = configure(trailing, options={"index_col": False})
    assert read(accepted)["customer"].to_pylist() == ["007", "bob"]
    assert "row 3 has more fields" in refused(
        trailing + "cid,2024-01-03,1,234\n", options={"index_col": False}
    )
    with pytest.raises(ValueError, match="index_col can only be false"):
        configure(trailing, options={"index_col": 0})


@pytest.mark.parametrize(("separator", "name"), [(";", "`;`"), ("\t", "a tab"), ("|", "`|`")])
def test_a_wrong_separator_is_refused_with_the_probable_one(
    refused: Refused, configure: Configure, separator: str, name: str
) -> None:
    text = HEADER.replace(",", separator) + separator.join(["ann", "2024-01-01", "9,5"]) + "\n"
    assert f"is the separator {name}?" in refused(text)
    assert read(configure(text, options={"sep": separator}))["paid"].to_pylist() == ["9,5"]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ({"options": {"skipfooter": 1, "engine": "python"}}, "skipfooter is not possible.*unusable row"),
        ({"options": {"dayfirst": True}}, "set source.dates to day_first"),
        ({"options": {"date_format": "%s"}}, "epoch_s or epoch_ms"),
        ({"dates": "%s"}, "epoch_s or epoch_ms"),
        ({"dates": "dd.mm.yyyy"}, "a format such as %d.%m.%Y"),
        ({"dates": "%d.%m.%Y %Q"}, "no format of strptime"),
        ({"dates": "day_first", "options": {"date_format": "%d.%m.%Y"}}, "source.dates differs"),
        ({"options": {"thousands": "."}}, "is the decimal sign too"),
    ],
)
def test_options_without_effect_are_refused_when_the_config_is_read(
    configure: Configure, source: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        configure(LOG, **source)


def packed(name: str) -> bytes:
    content = LOG.encode()
    if name == "zip":
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("log.csv", content)
        return memory.getvalue()
    if name == "zstd":
        return bytes(pa.compress(content, "zstd", asbytes=True))
    return {"gzip": gzip, "bz2": bz2, "xz": lzma}[name].compress(content)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("name", ["gzip", "bz2", "xz", "zstd", "zip"])
def test_a_compressed_file_is_recognised_by_its_content(
    configure: Configure, folder: Path, name: str
) -> None:
    file = folder / "orders.csv"
    file.write_bytes(packed(name))
    assert read(configure(file)).equals(read(configure(LOG)))


def test_an_uncompressed_file_with_the_ending_of_a_compressed_one(configure: Configure, folder: Path) -> None:
    (folder / "orders.csv.gz").write_text(LOG)
    assert read(configure(folder / "orders.csv.gz")).num_rows == 3


def test_a_file_of_another_kind_is_refused_with_its_kind(refused: Refused, folder: Path) -> None:
    file = folder / "orders.csv"
    write(file)
    assert "this is a Parquet file, not text; set data.source.kind to parquet" in refused(file)
    pd.DataFrame(ROWS).to_excel(folder / "x.xlsx")
    file.write_bytes((folder / "x.xlsx").read_bytes())
    assert "this is an Excel workbook, not text; set data.source.kind to excel, or save" in refused(file)
    file.write_bytes(LOG.encode())
    assert "this is text, not a Parquet file; set data.source.kind to csv" in refused(file, kind="parquet")
    file.write_text("<!DOCTYPE html><html>Please sign in</html>")
    assert "this is a web page (HTML), not text" in refused(file)
    file.write_bytes(LOG.encode("utf-16"))
    assert "this is UTF-16 text; set data.source.options.encoding to utf-16" in refused(file)
    file.write_bytes(gzip.compress(write(folder / "p.parquet").read_bytes()))
    assert "this is a Parquet file" in refused(file)


def test_utf_16_with_its_encoding(configure: Configure, folder: Path) -> None:
    (folder / "t.csv").write_bytes(LOG.encode("utf-16"))
    assert read(configure(folder / "t.csv", options={"encoding": "utf-16"})).num_rows == 3


def test_types_of_several_files_become_a_common_type_without_loss(configure: Configure, folder: Path) -> None:
    write(folder / "a.parquet", customer=pa.array([1, 2**62]), paid=pa.array([1, 2], pa.int32()))
    write(folder / "b.parquet", customer=pa.array(["x", "07"]), paid=[0.5, None])
    write(folder / "c.parquet", customer=pa.nulls(2), paid=pa.array([3, 4]))
    table = read(configure(folder, kind="parquet"))
    assert table["customer"].to_pylist() == ["1", str(2**62), "x", "07", None, None]
    assert table["paid"].to_pylist() == [1, 2, 0.5, None, 3, 4]


def test_types_without_a_common_type_are_refused_with_column_and_files(
    refused: Refused, folder: Path
) -> None:
    write(folder / "a.parquet", customer=pa.array([1.5, 2.5]))
    write(folder / "b.parquet")
    message = refused(folder, kind="parquet")
    assert "column 'customer' is double in a.parquet but string in b.parquet; write it with one" in message
    write(folder / "b.parquet", customer=pa.array([1, 2**60 + 1]))
    assert "b.parquet: cannot be read: Integer value" in refused(folder, kind="parquet")


def test_old_timestamps_of_spark_do_not_overflow(configure: Configure, folder: Path) -> None:
    moments = pa.array([0, 253_000_000_000], pa.timestamp("s"))  # 1970 and 9987
    table = pa.table({"customer": ["a", "b"], "when": moments.cast(pa.timestamp("us")), "paid": [1.0, 2.0]})
    pq.write_table(table, folder / "t.parquet", use_deprecated_int96_timestamps=True)
    assert [t.year for t in read(configure(folder / "t.parquet", kind="parquet"))["when"].to_pylist()] == [
        1970,
        9987,
    ]


def test_chunks_are_read_one_after_the_other(configure: Configure, folder: Path) -> None:
    rows = 1_100_000
    table = pa.table(
        {
            "customer": pa.array(range(rows)),
            "when": pa.repeat("2024-01-01", rows),
            "paid": pa.repeat(1.0, rows),
            "unread": pa.repeat("x" * 50, rows),
        }
    )
    pq.write_table(table, folder / "t.parquet")
    reading = open_source(configure(folder / "t.parquet", kind="parquet"))
    before = pa.total_allocated_bytes()
    sizes = []
    for chunk in reading.chunks():
        sizes.append(chunk.num_rows)
        assert chunk.column_names == ["customer", "when", "paid"]
        assert pa.total_allocated_bytes() - before < 60 << 20
        assert reading.sha256 == ""
    assert sum(sizes) == rows and max(sizes) <= 500_000
    assert len(reading.sha256) == 64


def test_chunks_of_a_wide_table_have_fewer_rows(configure: Configure) -> None:
    header = "customer,when,paid," + ",".join(f"c{i}" for i in range(997)) + "\n"
    row = "ann,2024-01-01,1," + ",".join("1" for _ in range(997)) + "\n"
    sizes = [chunk.num_rows for chunk in open_source(configure(header + row * 12_000)).chunks()]
    assert sizes == [10_000, 2_000]


def test_only_the_first_rows_are_read_for_a_sample(configure: Configure, folder: Path) -> None:
    (folder / "a.csv").write_text(LOG)
    (folder / "b.csv").write_text("not a table at all\n")
    reading = open_source(configure(folder), limit=2)
    assert [chunk.num_rows for chunk in reading.chunks()] == [2] and reading.sha256 == ""


def test_columns_of_expressions_are_read_too(configure: Configure) -> None:
    text = "customer,when,units,price,state,note\nann,2024-01-01,2,3.5,ok,x\n"
    config = configure(
        text,
        columns={"user_id": "customer", "timestamp": "when"},
        computed={"amount": "units * price"},
        where="state <> 'cancelled'",
        returns="amount < 0 or units < 0",
    )
    assert read(config).column_names == ["customer", "when", "units", "price", "state"]
    assert read(config, further=["note"]).column_names[-1] == "note"
    with pytest.raises(DataError, match=r"no column 'colour' for features"):
        read(config, further=["colour"])

"""The kinds of sources, and the errors for sources that cannot be used."""

import gzip
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest

from core.errors import DataError
from data.config import DataConfig
from data.sample import sample_user_ids
from data.source.sources import CDNOW_SHA256
from support.data_tables import LOG, Configure, cdnow, read

Refused = Callable[..., str]


@pytest.fixture
def refused(configure: Configure) -> Refused:
    def run(table: pd.DataFrame | str | Path, **source: Any) -> str:
        with pytest.raises(DataError) as error:
            read(configure(table, **source))
        message = str(error.value)
        assert "\n" not in message
        return message

    return run


def test_cdnow_is_read_from_the_wheel_and_checked() -> None:
    raw = read(cdnow())
    assert raw.sha256 == CDNOW_SHA256
    assert raw.table.num_rows == 69_659
    assert raw.table["customer_id"][0].as_py() == "00001"


def test_the_package_with_the_cdnow_file_is_never_imported() -> None:
    script = (
        "import sys; from data.config import DataConfig; from data.source.sources import open_source;"
        "config = DataConfig(shape='transactions', source={'kind': 'cdnow'}, expectations=());"
        "list(open_source(config).chunks());"
        "assert not any(m.split('.')[0].lower() == 'lifetimes' for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_changed_cdnow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.source.sources.CDNOW_SHA256", "0" * 64)
    with pytest.raises(DataError, match="reinstall Lifetimes"):
        read(cdnow())


def test_the_digest_is_of_the_bytes_of_the_file(configure: Configure) -> None:
    assert read(configure(LOG)).sha256 == hashlib.sha256(LOG.encode()).hexdigest()
    assert read(configure(LOG, options={"nrows": 1})).sha256 == hashlib.sha256(LOG.encode()).hexdigest()


def test_any_fsspec_uri(configure: Configure, tmp_path: Path) -> None:
    with fsspec.open("memory://shop/log.csv", "w") as file:
        file.write(LOG)
    assert read(configure(LOG, uri="memory://shop/log.csv")).table.equals(read(configure(LOG)).table)
    assert read(configure(LOG, uri=(tmp_path / "table.csv").as_uri())).table.num_rows == 3


def test_compressed_tables(configure: Configure, tmp_path: Path) -> None:
    plain = read(configure(LOG)).table
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(LOG.encode()))
    assert read(configure(packed)).table.equals(plain)
    assert read(configure(packed)).sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()
    with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
        archive.writestr("log.csv", LOG)
    assert read(configure(tmp_path / "log.zip")).table.equals(plain)


def test_a_folder_or_a_pattern_is_one_table(configure: Configure, tmp_path: Path) -> None:
    folder = tmp_path / "days"
    folder.mkdir()
    rows = pd.DataFrame({"customer": [1, 2], "when": pd.Timestamp("2024-01-01"), "paid": [1.0, 2.0]})
    rows.head(1).to_parquet(folder / "a.parquet")
    rows.tail(1).to_parquet(folder / "b.parquet")
    (folder / "_SUCCESS").touch()
    whole = read(configure(folder, kind="parquet"))
    assert whole.table["customer"].to_pylist() == [1, 2]
    pattern = read(configure(folder / "*.parquet", kind="parquet"))
    assert pattern.sha256 == whole.sha256
    assert read(configure(folder / "a.parquet", kind="parquet")).sha256 != whole.sha256


def test_passwords_of_an_address_are_not_shown(refused: Refused) -> None:
    message = refused(LOG, uri="memory://me:secret@shop/none.csv?signature=abc")
    assert "secret" not in message and "abc" not in message and "no such file" in message


def test_a_missing_file(refused: Refused, tmp_path: Path) -> None:
    assert "none.csv: no such file; correct data.source.uri" in refused(tmp_path / "none.csv")
    assert "no csv file is there" in refused(tmp_path / "none-*.csv")
    assert "no parquet file is there" in refused(tmp_path, kind="parquet")


def test_an_unknown_protocol(refused: Refused) -> None:
    assert "Protocol not known: gopher" in refused(LOG, uri="gopher://x/y.csv")


@pytest.mark.parametrize("content", [b"", b"PAR1 no, not really PAR1"])
def test_a_corrupt_parquet_file(refused: Refused, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "t.parquet"
    file.write_bytes(content)
    assert "t.parquet: cannot be read: " in refused(file, kind="parquet")


def test_a_cut_parquet_file(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pd.DataFrame({"customer": range(1000), "when": "2024-01-01", "paid": 1.0}).to_parquet(file)
    file.write_bytes(file.read_bytes()[:-100])
    assert "cannot be read" in refused(file, kind="parquet")


def test_a_broken_gzip_file(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "t.csv.gz"
    file.write_bytes(gzip.compress(LOG.encode() * 1000)[:-50])
    assert "cannot be read" in refused(file)


def test_rows_that_do_not_fit_the_header(refused: Refused) -> None:
    assert "line 5" in refused(LOG + "a,b,c,d\n")
    assert "more fields than the header" in refused("customer,when,paid\nann,x,2024-01-01,1\n")


def test_text_in_another_encoding(refused: Refused, configure: Configure, tmp_path: Path) -> None:
    file = tmp_path / "latin.csv"
    file.write_bytes(LOG.replace("ann", "ännchen").encode("latin-1"))
    assert "data.source.options.encoding" in refused(file)
    assert read(configure(file, options={"encoding": "latin-1"})).table["customer"][0].as_py() == "ännchen"


def test_an_option_that_does_not_exist(refused: Refused) -> None:
    assert "data.source.options" in refused(LOG, options={"seperator": ";"})


@pytest.mark.parametrize("table", ["", "customer,when,paid\n"])
def test_an_empty_table(refused: Refused, table: str) -> None:
    assert "table.csv" in refused(table)


def test_a_missing_column_is_refused_with_the_existing_ones_and_a_similar_one(refused: Refused) -> None:
    message = refused("Customer,when,payd\nann,2024-01-01,1\n")
    assert "no column 'customer' (did you mean 'Customer'?)" in message
    assert "there are Customer, when, payd" in message
    message = refused(LOG, types={"payd": "float64"})
    assert "'payd' (did you mean 'paid'?) for data.source.types.payd" in message


def test_a_nested_column(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pd.DataFrame({"customer": ["a"], "when": ["2024-01-01"], "paid": [[1, 2]]}).to_parquet(file)
    assert "column 'paid' is list<element: int64>" in refused(file, kind="parquet")


def test_bytes_are_text_or_refused(refused: Refused, configure: Configure, tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    row = {"when": ["2024-01-01"], "paid": [1.0]}
    pd.DataFrame({"customer": [b"ann"], **row}).to_parquet(file)
    assert read(configure(file, kind="parquet")).table["customer"].to_pylist() == ["ann"]
    pd.DataFrame({"customer": [b"\xff"], **row}).to_parquet(file)
    assert "column 'customer' is binary, and its bytes are no UTF-8 text" in refused(file, kind="parquet")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"options": {"usecols": ["a"]}}, "usecols cannot be set here"),
        ({"types": {"paid": "float64"}}, "whose type source.columns decides"),
        ({"types": {"city": "varchar"}}, "'int64', 'float64' or 'string'"),
        ({"columns": {"user_id": "a", "timestamp": "b"}}, "source.columns lacks amount"),
        (
            {"columns": {"user_id": "a", "timestamp": "b", "amount": "c", "quantiti": "d"}},
            "source.columns.quantiti is not a column of ours",
        ),
    ],
)
def test_a_wrong_mapping_is_an_error_of_the_config(
    configure: Configure, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        configure(LOG, **change)


def test_duplicates_keep_is_refused_for_a_labelled_table(configure: Configure) -> None:
    with pytest.raises(ValueError, match="one row a user_id"):
        configure(LOG, shape="labelled", duplicates="keep")


def test_sampled_customers_are_real_and_always_the_same() -> None:
    sampled = sample_user_ids(cdnow(), 5)
    assert sampled == sample_user_ids(cdnow(), 5)
    assert len(set(sampled)) == 5 and all(isinstance(i, int) and 1 <= i <= 23_570 for i in sampled)


def test_sampled_customers_have_usable_rows(configure: Configure) -> None:
    config: DataConfig = configure(LOG + "cid,never,1\n")
    assert sample_user_ids(config, 10) == ["ann", "bob"]

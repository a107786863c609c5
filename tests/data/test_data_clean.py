"""No row is lost: each ends in the records or, with its reason, among the rejected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from data_tables import LOG, Configure

from data.clean import Cleaned, check_rejected_share, clean
from data.config import DataConfig
from data.errors import DataError
from data.sources import as_table, read

Clean = Callable[..., Cleaned]
TABLE = "customer,plan,bill,churned\na,basic,10.5,Yes\nb,,20,No\nc,plus, ,No\n"


@pytest.fixture
def cleaned(configure: Configure) -> Clean:
    def run(table: pd.DataFrame | str | Path, shape: str = "transactions", **source: Any) -> Cleaned:
        return of(configure(table, shape, **source))

    return run


def of(config: DataConfig) -> Cleaned:
    return clean(read(config).table, as_table(config), config)


def test_a_log_has_canonical_columns_and_types(cleaned: Clean) -> None:
    records = cleaned(LOG).records
    assert records.schema == pa.schema(
        [
            ("user_id", pa.string()),
            ("timestamp", pa.timestamp("us", tz="UTC")),
            ("amount", pa.float64()),
            ("quantity", pa.float64()),
        ]
    )
    assert records["quantity"].to_pylist() == [1.0, 1.0, 1.0]
    assert records["timestamp"][2].as_py().isoformat() == "2024-02-29T22:00:00+00:00"


def test_unusable_rows_are_set_aside_as_read_with_number_and_reason(cleaned: Clean) -> None:
    result = cleaned(LOG + ",2024-01-01,1\nbob,yesterday,1\nbob,2024-01-01,\nbob,2024-01-01,free\n")
    assert result.records.num_rows == 3
    assert result.rejected.to_pylist() == [
        {"customer": None, "when": "2024-01-01", "paid": "1", "row": 4, "reason": "user_id is missing"},
        {
            "customer": "bob",
            "when": "yesterday",
            "paid": "1",
            "row": 5,
            "reason": "timestamp is not an ISO 8601 date (or data.source.options.date_format)",
        },
        {"customer": "bob", "when": "2024-01-01", "paid": None, "row": 6, "reason": "amount is missing"},
        {
            "customer": "bob",
            "when": "2024-01-01",
            "paid": "free",
            "row": 7,
            "reason": "amount is not a number",
        },
    ]


def test_identifiers_that_are_not_integers(cleaned: Clean) -> None:
    result = cleaned(LOG + "12,2024-01-01,1\n", user_id_type="integer")
    assert result.records["user_id"].to_pylist() == [12]
    assert set(result.rejected["reason"].to_pylist()) == {
        "user_id is not an integer (data.source.user_id_type)"
    }


def test_a_quantity_may_be_blank_but_not_nonsense(cleaned: Clean) -> None:
    columns = {"user_id": "customer", "timestamp": "when", "amount": "paid", "quantity": "n"}
    result = cleaned("customer,when,paid,n\na,20240101,1,\nb,20240101,1,3\nc,20240101,1,x\n", columns=columns)
    assert result.records["quantity"].to_pylist() == [1.0, 3.0]
    assert result.rejected["reason"].to_pylist() == ["quantity is not a number"]


def test_a_log_takes_only_the_further_columns_that_are_asked_for(cleaned: Clean) -> None:
    log = "customer,when,paid,shop,email,reason\na,20240101,1,x,a@b.c,r\n,20240101,1,x,a@b.c,r\n"
    result = cleaned(log, types={"shop": "string", "reason": "string"})
    assert result.records.column_names == ["user_id", "timestamp", "amount", "quantity", "shop", "reason"]
    assert "email" not in result.rejected.column_names
    assert result.rejected["reason (source)"].to_pylist() == ["r"]


def test_more_than_the_allowed_share_of_rejected_rows_is_refused(configure: Configure) -> None:
    rows = LOG.splitlines()
    config = configure("\n".join([*rows, "x,2024-01-01,free", "y,never,1", "z,never,1"]))
    with pytest.raises(DataError) as error:
        check_rejected_share(of(config), "orders.csv", 0.4)
    assert str(error.value) == (
        "orders.csv: 3 of 6 rows cannot be used, more than data.max_rejected_share 0.4 allows; most often"
        " timestamp is not an ISO 8601 date (or data.source.options.date_format) (2 rows, the first is row 5)"
    )
    assert [(r["rows"], r["first_row"]) for r in error.value.table] == [(2, 5), (1, 4)]
    check_rejected_share(of(config), "orders.csv", 0.5)


def test_a_table_without_a_usable_row_is_refused_whatever_share_is_allowed(configure: Configure) -> None:
    config = configure("customer,when,paid\na,never,1\n")
    with pytest.raises(DataError, match="1 of 1 rows cannot be used"):
        check_rejected_share(of(config), "orders.csv", 1.0)


REPEATED = LOG + "ann,2024-01-05,10.5\nann,2024-01-05,10.5\n"


def test_repeated_rows_are_refused_dropped_or_kept(cleaned: Clean) -> None:
    with pytest.raises(DataError, match=r"2 rows equal a row above in every column \(first: row 4\)"):
        cleaned(REPEATED)
    dropped = cleaned(REPEATED, duplicates="drop")
    assert dropped.records.num_rows == 3
    assert [(r["row"], r["reason"]) for r in dropped.rejected.to_pylist()] == [
        (4, "duplicate"),
        (5, "duplicate"),
    ]
    assert dropped.unusable == 0
    assert cleaned(REPEATED, duplicates="keep").records.num_rows == 5


def test_rows_that_differ_in_a_column_we_do_not_take_are_no_duplicates(cleaned: Clean) -> None:
    assert cleaned("customer,when,paid,order\na,20240101,1,7\na,20240101,1,8\n").records.num_rows == 2


def test_a_transaction_id_decides_alone(cleaned: Clean) -> None:
    columns = {"user_id": "customer", "timestamp": "when", "amount": "paid", "transaction_id": "order"}
    log = "customer,when,paid,order\na,20240101,1,7\na,20240102,2,7\na,20240101,1,\na,20240101,1,\n"
    result = cleaned(log, columns=columns, duplicates="drop")
    assert result.rejected["row"].to_pylist() == [2]
    assert result.records.column_names == ["user_id", "timestamp", "amount", "quantity"]


def test_duplicates_are_found_across_chunks_and_types(cleaned: Clean, tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {
            "customer": pd.array([1, None] * 300_001, dtype="Int64"),
            "when": pd.date_range("2000-01-01", periods=600_002, freq="min").repeat(1),
            "paid": 1.0,
        }
    )
    rows.loc[600_000] = rows.loc[0]
    rows.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"1 rows equal .* \(first: row 600001\)"):
        cleaned(tmp_path / "t.parquet", kind="parquet")


def test_a_labelled_table_keeps_its_columns_with_inferred_types(cleaned: Clean) -> None:
    records = cleaned(TABLE, "labelled", positive="Yes").records
    assert [(f.name, str(f.type)) for f in records.schema] == [
        ("user_id", "string"),
        ("event_timestamp", "timestamp[us, tz=UTC]"),
        ("target", "int8"),
        ("plan", "string"),
        ("bill", "double"),
    ]
    assert records["target"].to_pylist() == [1, 0, 0]
    assert records["plan"].to_pylist() == ["basic", None, "plus"]
    assert records["bill"].to_pylist() == [10.5, 20.0, None]
    assert records["event_timestamp"][0].as_py().isoformat() == "2025-01-01T00:00:00+00:00"


def test_a_rejected_row_does_not_change_the_type_of_a_column(cleaned: Clean) -> None:
    result = cleaned(TABLE + ",plus,Yes,Yes\n", "labelled", positive="Yes")
    assert str(result.records.schema.field("bill").type) == "double"
    assert result.rejected["bill"].to_pylist() == ["Yes"]


def test_a_repeated_customer_of_a_labelled_table_is_a_duplicate(cleaned: Clean) -> None:
    table = TABLE + "a,plus,1,No\n"
    with pytest.raises(DataError, match=r"user_id of a row above \(first: row 4\).* to drop"):
        cleaned(table, "labelled", positive="Yes")
    result = cleaned(table, "labelled", positive="Yes", duplicates="drop")
    assert result.records["user_id"].to_pylist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("values", "positive"),
    [
        (["1", "0", "1"], 1),
        (["1.0", "0.0", "1"], 1),
        (["true", "False", "True"], True),
        (["True", "False", "true"], 1),
        (["1", "0", "1"], "1"),
        (["gone", "here", "gone"], "gone"),
    ],
)
def test_the_positive_value_matches_however_it_is_spelled(
    cleaned: Clean, values: list[str], positive: object
) -> None:
    table = pd.DataFrame({"customer": ["a", "b", "c"], "churned": values})
    assert cleaned(table, "labelled", positive=positive).records["target"].to_pylist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (["Yes", "No", "Maybe"], "has 3 values, not two: 'Maybe', 'No', 'Yes'"),
        (["yes", "no", "no"], "never is 'Yes': there are 'no', 'yes'; set data.source.positive"),
        (["Yes", "Yes", "Yes"], "is always 'Yes'"),
    ],
)
def test_a_target_that_is_not_binary(cleaned: Clean, values: list[str], complaint: str) -> None:
    table = pd.DataFrame({"customer": ["a", "b", "c"], "churned": values})
    with pytest.raises(DataError, match=complaint):
        cleaned(table, "labelled", positive="Yes")


def test_an_unquoted_yes_is_explained(cleaned: Clean) -> None:
    with pytest.raises(DataError, match=r"never is True: there are 'No', 'Yes'.* in quotes"):
        cleaned(TABLE, "labelled", positive=True)


def test_a_row_without_a_target_is_rejected(cleaned: Clean) -> None:
    result = cleaned(TABLE + "d,plus,1,\n", "labelled", positive="Yes")
    assert [(r["row"], r["reason"]) for r in result.rejected.to_pylist()] == [(4, "target is missing")]


def test_a_further_column_cannot_take_one_of_our_names(cleaned: Clean) -> None:
    with pytest.raises(DataError, match="column 'target' has the name of one of ours"):
        cleaned("customer,churned,target\na,1,x\nb,0,y\n", "labelled")

"""No row is lost: each is in the records or, with a reason, in the rejected rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from core.errors import DataError
from data.config import DataConfig
from data.prepare.clean import Cleaned, Cleaner, clean
from data.source.readers import public_uri
from data.source.sources import as_table, open_source
from support.data_tables import LOG, Configure

Clean = Callable[..., Cleaned]
TABLE = "customer,plan,bill,churned\na,basic,10.5,Yes\nb,,20,No\nc,plus, ,No\n"
FURTHER = ("plan", "bill")


@pytest.fixture
def cleaned(configure: Configure) -> Clean:
    def run(
        table: pd.DataFrame | str | Path,
        shape: str = "transactions",
        further: tuple[str, ...] = (),
        **source: Any,
    ) -> Cleaned:
        return of(configure(table, shape, **source), further)

    return run


def of(config: DataConfig, further: tuple[str, ...] = ()) -> Cleaned:
    table = pa.concat_tables(open_source(config, further).chunks())
    return clean(table, as_table(config), config, further)


def rejected(result: Cleaned) -> list[dict[str, Any]]:
    found = result.rejected
    facts = zip(found.cells.to_pylist(), found.places.to_pylist(), found.reasons.to_pylist(), strict=True)
    return [{**cells, "row": place, "reason": reason} for cells, place, reason in facts]


def reasons(result: Cleaned) -> list[str]:
    return [row["reason"] for row in rejected(result)]


def test_a_log_has_canonical_columns_and_types(cleaned: Clean) -> None:
    records = cleaned(LOG).records
    assert records.schema == pa.schema(
        [
            ("user_id", pa.string()),
            ("timestamp", pa.timestamp("us", tz="UTC")),
            ("amount", pa.float64()),
            ("quantity", pa.float64()),
            ("is_return", pa.bool_()),
        ]
    )
    assert records["is_return"].to_pylist() == [False, False, False]
    assert records["quantity"].to_pylist() == [1.0, 1.0, 1.0]
    assert records["timestamp"][2].as_py().isoformat() == "2024-02-29T22:00:00+00:00"


def test_unusable_rows_are_set_aside_as_read_with_number_and_reason(cleaned: Clean) -> None:
    result = cleaned(LOG + ",2024-01-01,1\nbob,yesterday,1\nbob,2024-01-01,\nbob,2024-01-01,free\n")
    assert result.records.num_rows == 3
    rows = rejected(result)
    assert [(r["user_id"], r["timestamp"], r["amount"], r["row"]) for r in rows] == [
        (None, "2024-01-01", "1", 4),
        ("bob", "yesterday", "1", 5),
        ("bob", "2024-01-01", None, 6),
        ("bob", "2024-01-01", "free", 7),
    ]
    assert reasons(result)[0] == "user_id is missing"
    assert reasons(result)[1].startswith("timestamp is not")
    assert reasons(result)[2:] == ["amount is missing", "amount is not a number"]


def test_identifiers_that_are_not_integers(cleaned: Clean) -> None:
    result = cleaned(LOG + "12,2024-01-01,1\n", user_id_type="integer")
    assert result.records["user_id"].to_pylist() == [12]
    assert set(reasons(result)) == {"user_id is not an integer (data.source.user_id_type)"}


def test_a_quantity_may_be_blank_but_not_unreadable(cleaned: Clean) -> None:
    columns = {"user_id": "customer", "timestamp": "when", "amount": "paid", "quantity": "n"}
    result = cleaned("customer,when,paid,n\na,20240101,1,\nb,20240101,1,3\nc,20240101,1,x\n", columns=columns)
    assert result.records["quantity"].to_pylist() == [1.0, 3.0]
    assert reasons(result) == ["quantity is not a number"]


def test_only_declared_columns_enter(cleaned: Clean) -> None:
    log = "customer,when,paid,shop,email,city\na,20240101,1,x,a@b.c,r\n,20240101,1,x,a@b.c,r\n"
    result = cleaned(log, types={"shop": "string"}, keep=["city"])
    assert result.records.column_names[5:] == ["shop", "city"]
    assert "email" not in result.rejected.cells.column_names
    table = cleaned(TABLE, "labelled", positive="Yes", further=("bill",)).records
    assert table.column_names == ["user_id", "event_timestamp", "target", "bill"]


@pytest.mark.parametrize(
    ("shape", "table", "source", "complaint"),
    [
        (
            "transactions",
            "customer,when,paid,Amount\n",
            {"keep": ["Amount"]},
            "'Amount' and 'amount' of ours",
        ),
        ("transactions", "customer,when,paid,x,X\n", {"keep": ["x", "X"]}, "'X' and 'x' of the table"),
        ("labelled", "customer,churned,Target\n", {"keep": ["Target"]}, "'Target' and 'target' of ours"),
    ],
)
def test_names_that_differ_only_in_case_are_refused_with_the_remedy(
    configure: Configure, shape: str, table: str, source: dict[str, Any], complaint: str
) -> None:
    config = configure(table, shape, **source)
    with pytest.raises(DataError, match=complaint) as error:
        Cleaner(config, as_table(config))
    assert "data.source.computed" in str(error.value) and "\n" not in str(error.value)


def test_a_column_read_under_another_name_does_not_change_the_standard_one(cleaned: Clean) -> None:
    log = "customer,when,paid,Amount\na,20240101,1,20\n"
    records = cleaned(log, computed={"amount_2": '"Amount"'}).records
    assert (records["amount"][0].as_py(), records["amount_2"][0].as_py()) == (1.0, "20")


def test_a_mapped_column_cannot_be_stored_under_its_own_name(configure: Configure) -> None:
    with pytest.raises(ValueError, match=r"source\.keep names customer, which source\.columns maps"):
        configure(LOG, keep=["customer"])


def test_more_than_the_allowed_share_of_rejected_rows_is_refused(configure: Configure) -> None:
    rows = LOG.splitlines()
    config = configure("\n".join([*rows, "x,2024-01-01,free", "y,never,1", "z,never,1"]))
    cleaner = Cleaner(config, as_table(config))
    list(cleaner.chunks(open_source(config).chunks()))
    with pytest.raises(DataError) as error:
        cleaner.tally.check(public_uri(cleaner.source), 0.4, 3)
    assert "table.csv: 3 of 6 rows cannot be used, more than data.max_rejected_share 0.4 allows" in str(
        error.value
    )
    assert str(error.value).endswith("(2 rows, the first is row 5)")
    assert [(r["rows"], r["first_row"]) for r in error.value.table] == [(2, 5), (1, 4)]
    cleaner.tally.check(public_uri(cleaner.source), 0.5, 3)


def test_computed_columns_replace_mapped_ones(cleaned: Clean) -> None:
    table = "customer,day,hour,n,price\na,2024-01-05,10:30,2,1.5\nb,2024-01-06,11:00,x,2\n"
    result = cleaned(
        table,
        columns={"user_id": "customer"},
        computed={"timestamp": "day || ' ' || hour", "amount": "n * price", "basket": "upper(customer)"},
    )
    assert result.records.select(["amount", "basket"]).to_pylist() == [{"amount": 3.0, "basket": "A"}]
    assert result.records["timestamp"][0].as_py().isoformat() == "2024-01-05T10:30:00+00:00"
    assert reasons(result) == ["amount is missing"]


def test_rows_that_where_leaves_out_are_only_counted(configure: Configure) -> None:
    rows = ["a,20240101,1,Done", "b,x,y,Cancelled", "c,20240102,3,", "d,20240103,z,Done"]
    config = configure("\n".join(["customer,when,paid,status", *rows]), where="status = 'Done'")
    cleaner = Cleaner(config, as_table(config))
    (result,) = cleaner.chunks(open_source(config).chunks())
    assert result.records["user_id"].to_pylist() == ["a"]
    assert [(row["row"], row["reason"]) for row in rejected(result)] == [(4, "amount is not a number")]
    assert (cleaner.tally.rows, cleaner.tally.left_out) == (2, 2)


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ({}, [False, True, True, False]),
        ({"returns": None}, [False, False, False, False]),
        ({"returns": "invoice like 'C%' or amount < 0"}, [False, True, False, True]),
    ],
)
def test_returns(cleaned: Clean, returns: dict[str, Any], expected: list[bool]) -> None:
    rows = ["a,20240101,5,1,1", "a,20240102,-5,1,2", "a,20240103,5,-1,3", "a,20240104,5,,C4"]
    table = "\n".join(["customer,when,paid,n,invoice", *rows])
    columns = {"user_id": "customer", "timestamp": "when", "amount": "paid", "quantity": "n"}
    assert cleaned(table, columns=columns, **returns).records["is_return"].to_pylist() == expected


def test_a_table_without_identifiers_is_numbered(cleaned: Clean) -> None:
    table = "plan,churned,bill\na,1,2\nb,0,3\nb,2,3\nc,0,4\n"
    result = cleaned(
        table, "labelled", columns={"target": "churned"}, number_rows=True, ignore=[2], user_id_type="integer"
    )
    assert result.records["user_id"].to_pylist() == [1, 2, 4]


def test_the_columns_of_a_labelled_table_have_inferred_types(cleaned: Clean) -> None:
    records = cleaned(TABLE, "labelled", FURTHER, positive="Yes").records
    assert [(f.name, str(f.type)) for f in records.schema] == [
        ("user_id", "string"),
        ("event_timestamp", "timestamp[us, tz=UTC]"),
        ("target", "int8"),
        ("bill", "string"),
        ("plan", "string"),
    ]
    assert records["target"].to_pylist() == [1, 0, 0]
    assert records["plan"].to_pylist() == ["basic", None, "plus"]
    assert records["bill"].to_pylist() == ["10.5", "20", None]  # a number once all chunks agree
    assert records["event_timestamp"][0].as_py().isoformat() == "2025-01-01T00:00:00+00:00"


def test_the_type_of_a_column_is_decided_by_all_chunks(configure: Configure) -> None:
    config = configure(TABLE, "labelled", positive="Yes")
    cleaner = Cleaner(config, as_table(config), ("whole", "gaps", "fraction", "word", "rejected"))
    chunks = [
        {"whole": "12", "gaps": ["1", ""], "fraction": "12", "word": "12", "rejected": "12"},
        {"whole": "34", "gaps": "34", "fraction": ["3.5", "4"], "word": "a4", "rejected": "3x"},
    ]
    targets = [["Yes", "No"], ["Yes", ""]]
    for columns, target in zip(chunks, targets, strict=True):
        further = {name: list(values) for name, values in columns.items()}
        cleaner.clean(pa.table({"customer": ["a", "b"], "churned": target, **further}))
    kinds = {name: cleaner.further.kind(name) for name in cleaner.further.names}
    assert kinds == {
        "whole": "int64",
        "gaps": "float64",
        "fraction": "float64",
        "word": "string",
        "rejected": "int64",
    }


@pytest.mark.parametrize(
    ("values", "positive"),
    [
        (["1", "0", "1"], 1),
        (["1.0", "0.0", "1"], 1),
        (["true", "False", "True"], True),
        (["True", "False", "true"], 1),
        (["1", "0", "1"], "1"),
        (["gone", "here", "gone"], "gone"),
        (["True.", "False.", "True."], True),
        (["YES", "no", " yes "], "Yes"),
        (["Yes", "No", "yes"], True),  # YAML reads an unquoted Yes as true
        (["left early", "stayed", "Left  Early"], "Left early"),
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
        (["Yes", "No", "Maybe"], "has 3 values, not two: 'Maybe', 'No', 'Yes'.*positive.*ignore.*computed"),
        (["ja", "nein", "nein"], "never is 'Yes': there are 'ja', 'nein'; set data.source.positive"),
        (["Yes", "Yes", "yes"], "is always 'Yes'"),
    ],
)
def test_a_target_that_is_not_binary(cleaned: Clean, values: list[str], complaint: str) -> None:
    table = pd.DataFrame({"customer": ["a", "b", "c"], "churned": values})
    with pytest.raises(DataError, match=complaint):
        cleaned(table, "labelled", positive="Yes")


def test_a_truth_value_that_is_not_there_is_explained(cleaned: Clean) -> None:
    table = pd.DataFrame({"customer": ["a", "b"], "churned": ["ja", "nein"]})
    with pytest.raises(DataError, match=r"never is True: there are 'ja', 'nein'.* in quotes"):
        cleaned(table, "labelled", positive=True)


def test_several_values_may_mean_churned_and_others_nothing_yet(configure: Configure) -> None:
    values = ["Churned", "Stayed", "lost ", "Joined", "stayed", "Unknown", ""]
    table = pd.DataFrame({"customer": list("abcdefg"), "churned": values})
    config = configure(table, "labelled", positive=["churned", "Lost"], ignore=["Joined", "unknown"])
    cleaner = Cleaner(config, as_table(config))
    (result,) = cleaner.chunks(open_source(config).chunks())
    cleaner.target.check()
    assert result.records["user_id"].to_pylist() == ["a", "b", "c", "e"]
    assert result.records["target"].to_pylist() == [1, 0, 1, 0]
    assert [row["row"] for row in rejected(result)] == [4, 6, 7]
    assert cleaner.tally.unusable == 1  # ignored rows do not count as unusable


def test_a_number_is_no_target(cleaned: Clean) -> None:
    table = pd.DataFrame({"customer": range(200), "churned": range(200)})
    with pytest.raises(DataError, match="more than 50 values"):
        cleaned(table, "labelled")


def test_a_row_without_a_target_is_rejected(cleaned: Clean) -> None:
    result = cleaned(TABLE + "d,plus,1,\n", "labelled", positive="Yes")
    assert [(r["row"], r["reason"]) for r in rejected(result)] == [(4, "target is missing")]

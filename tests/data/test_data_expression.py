"""Expressions of a source's config: what they compute, and which are refused when the config is read."""

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.config import TAGS
from data.cell import parse as cells
from data.cell.expression import condition, parse
from support.data_tables import Configure

TABLE = pa.table(
    {
        "Quantity": ["2", "-3", "", "x"],
        "UnitPrice": ["1.5", "2", "4", "5"],
        "Order Status": ["Completed", "cancelled ", None, "Cancelled"],
        "InvoiceNo": ["1001", "C1002", "1003", "C1"],
        "Paid": pa.array([True, False, None, True]),
        "n": pa.array([1, 2, 3, None], pa.int64()),
        "m": pa.array([1.0, 2.5, 3.0, 4.0]),
        "gift": ["yes", "No", "1", "?"],
    }
)


def evaluated(text: str, table: pa.Table = TABLE) -> list[object]:
    values: list[object] = parse(text).evaluate(table, cells.numbers).to_pylist()
    return values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Quantity * UnitPrice", [3.0, -6.0, None, None]),
        ("-(Quantity + 1) / 2", [-1.5, 1.0, None, None]),
        ("Quantity / (m - 1)", [None, -2.0, None, None]),  # a division by zero gives nothing
        ("abs(Quantity) + round(m)", [3.0, 6.0, None, None]),
        ("round(UnitPrice / 3, 2)", [0.5, 0.67, 1.33, 1.67]),
        ("\"Order Status\" <> 'Cancelled'", [True, True, None, False]),
        ("lower(trim(\"Order Status\")) in ('cancelled', 'returned')", [False, True, None, True]),
        ("n not in (1, 3)", [False, True, False, None]),
        ("InvoiceNo like 'C%'", [False, True, False, True]),
        ("InvoiceNo not like 'C_'", [True, True, True, False]),
        ("Quantity < 0 or \"Order Status\" is null", [False, True, True, None]),
        ("not (Quantity < 0) and UnitPrice >= 1.5", [True, False, None, None]),
        ("n is not null", [True, True, True, False]),
        ("case when n = 1 then 'a' when n > 2 then 'b' else lower(InvoiceNo) end", ["a", "c1002", "b", "c1"]),
        ("coalesce(Quantity, UnitPrice)", ["2", "-3", "4", "x"]),
        ("coalesce(Quantity, 0) + 0", [2.0, -3.0, 0.0, 0.0]),
        ("gift || '/' || \"Order Status\"", ["yes/Completed", "No/cancelled ", None, "?/Cancelled"]),
        ("n = m", [True, False, True, None]),
        ("n <= m", [True, True, True, None]),
        ("Paid", [True, False, None, True]),
        ("Paid = true", [True, False, None, True]),
        ("gift is true", [True, False, True, False]),
        ("n between 2 and 3", [False, True, True, None]),
        ("nullif(InvoiceNo, '1001')", [None, "C1002", "1003", "C1"]),
        ("replace(InvoiceNo, 'C', '')", ["1001", "1002", "1003", "1"]),
        ("1", [1.0, 1.0, 1.0, 1.0]),
    ],
)  # fmt: skip
def test_the_result_of_an_expression(text: str, expected: list[object]) -> None:
    assert evaluated(text) == expected


def test_numbers_are_read_in_the_notation_of_the_source() -> None:
    table = pa.table({"price": ["1.234,50", "2,5"]})

    def german(column: pa.ChunkedArray) -> pa.ChunkedArray:
        return cells.numbers(column, cells.Notation(",", "."))

    assert parse("price * 2").evaluate(table, german).to_pylist() == [2469.0, 5.0]


def test_columns_are_named_as_written() -> None:
    parsed = parse('"Unit Price" * quantity + Quantity')
    assert parsed.columns == {"Unit Price", "quantity", "Quantity"}
    table = pa.table({"quantity": [1], "Quantity": [10], "Unit Price": [2]})
    assert evaluated('"Unit Price" * quantity + Quantity', table) == [12.0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Quantity *", "cannot be read"),
        ("'open", "a quote is not closed"),
        ("", "the expression is empty"),
        ("Quantity + 'a'", "is a text where a number is needed"),
        ("n = 'a' + 1", "is a text where a number is needed"),
        ("lower(n) < 3", "compares a number with a text"),
        ("n in (1, 'a')", "compares a number with a text"),
        ("n in (select 1)", "write the values themselves"),
        ("cast(n as int)", "is not part of the grammar"),
        ("sum(n)", "is not part of the grammar"),
        ("read_csv('/etc/passwd')", "is not part of the grammar"),
        ("n; drop table x", "is not part of the grammar"),
        ("a.b > 1", 'as "a.b"'),
        ("n = null", "write `is null`"),
        ("n = ''", "write `is null`"),
        ("trim(n, 'x')", "does not take"),
        ("n as m", "is not part of the grammar"),
    ],
)
def test_an_expression_outside_the_grammar_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_a_condition_is_not_a_number() -> None:
    with pytest.raises(ValueError, match="gives a number; write a condition"):
        condition("Quantity * 2")
    assert condition("gift").evaluate(TABLE, cells.numbers).to_pylist() == [True, False, True, None]


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ({"computed": {"quantity": "a ** b"}}, "source.computed.quantity"),
        ({"where": "a +"}, "source.where"),
        ({"where": "a + 1"}, "source.where"),
        ({"returns": "sum(a) < 0"}, "source.returns"),
    ],
)
def test_a_wrong_expression_is_refused_when_the_config_is_read(
    configure: Configure, setting: dict[str, object], key: str
) -> None:
    with pytest.raises(ValidationError) as error:
        configure("customer,when,paid\n", **setting)
    parts = [str(part) for part in error.value.errors()[0]["loc"] if part not in TAGS]
    assert ".".join(parts).startswith(key)


NUMBERS = st.one_of(st.none(), st.integers(-3, 3).map(float))
OPERATORS = st.sampled_from(["+", "-", "*", "<", "<=", "=", "<>", ">"])


@given(
    rows=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=30),
    first=OPERATORS,
    second=OPERATORS,
    joined=st.sampled_from(["and", "or", "and not", "or not"]),
)
def test_nulls_and_conditions_equal_those_of_sql(
    rows: list[tuple[float | None, float | None]], first: str, second: str, joined: str
) -> None:
    """DuckDB as the independent reference."""
    left = f"(A + 0) {first} B" + (" > 0" if first in "+-*" else "")
    right = f"B {second} (A + 1)" + (" > 0" if second in "+-*" else "")
    text = f"({left}) {joined} ({right})"
    columns = {name: pa.array([row[i] for row in rows], pa.float64()) for i, name in enumerate("AB")}
    table = pa.table(columns)
    with duckdb.connect() as connection:
        connection.register("tab", table)
        expected = [row[0] for row in connection.execute(f"SELECT {text} FROM tab").fetchall()]
    assert evaluated(text, table) == expected


def test_chunks_give_the_same_result_as_the_whole_table() -> None:
    values = np.arange(10).astype(str)
    whole = pa.table({"x": values})
    parts = pa.concat_tables([whole.slice(0, 3), whole.slice(3)])
    frame = pd.DataFrame({"x": values}).astype(float)
    expected = (frame["x"] * 2 + 1).tolist()
    assert evaluated("x * 2 + 1", parts) == evaluated("x * 2 + 1", whole) == expected
    assert pc.sum(parse("x > 4").evaluate(parts, cells.numbers)).as_py() == 5

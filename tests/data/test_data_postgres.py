"""A source in PostgreSQL, on a real server."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest

from core.errors import DataError
from data.config import DataConfig
from data.source.sources import Reading, open_source
from support.servers.postgres import PASSWORD, postgres

ORDERS = """
CREATE TABLE orders (
    customer bigint, placed timestamptz, day date, local timestamp, amount numeric(10, 2), note text,
    "Mixed Case" int, ok boolean, code uuid, big numeric(20, 0)
);
INSERT INTO orders VALUES
    (9223372036854775807, '2024-01-05 10:00+02', '2024-01-05', '2024-01-05 10:00:00.5', 10.50, 'a "quoted",
line', 1, true, '550e8400-e29b-41d4-a716-446655440000', 12345678901234567890),
    (2, 'infinity', '0044-03-15 BC', NULL, NULL, '', NULL, false, NULL, NULL),
    (3, '2024-02-05', NULL, NULL, 'NaN', 'NA', 3, NULL, NULL, NULL);
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as address:
        import psycopg

        uri = address + "studies"
        with psycopg.connect(uri.replace("+psycopg", "")) as connection:
            connection.execute(ORDERS)
        yield uri


def opened(uri: str, columns: dict[str, str] | None = None, **source: Any) -> Reading:
    where = source if {"query", "table"} & source.keys() else {"table": "orders", **source}
    mapped = columns or {"user_id": "customer", "timestamp": "placed", "amount": "amount"}
    config = {"kind": "postgres", "uri": uri, "columns": mapped, "returns": None, **where}
    return open_source(
        DataConfig.model_validate({"shape": "transactions", "source": config, "expectations": []})
    )


def test_a_table_with_the_types_of_its_columns(server: str) -> None:
    keep = ["day", "local", "note", "Mixed Case", "ok", "code", "big"]
    rows = [row for chunk in opened(server, keep=keep).chunks() for row in chunk.to_pylist()]
    first, second, third = rows
    assert first["customer"] == 2**63 - 1 and first["amount"] == 10.5
    assert first["placed"] == datetime(2024, 1, 5, 8, tzinfo=UTC)
    assert first["day"] == date(2024, 1, 5) and first["local"] == datetime(2024, 1, 5, 10, 0, 0, 500_000)
    assert first["note"] == 'a "quoted",\nline' and first["Mixed Case"] == 1 and first["ok"] is True
    assert first["code"] == "550e8400-e29b-41d4-a716-446655440000"
    assert str(first["big"]) == "12345678901234567890"
    assert second["placed"] is None and second["day"] is None and second["note"] == ""
    assert third["note"] == "NA" and third["ok"] is None


def test_a_query_reads_only_wanted_columns_and_the_digest_is_of_the_rows(server: str) -> None:
    query = "SELECT customer, placed, amount, note FROM orders ORDER BY customer -- all of them;"
    reading = opened(server, query=query)
    assert [chunk.column_names for chunk in reading.chunks()] == [["customer", "placed", "amount"]]
    again = opened(server, query=query)
    list(again.chunks())
    assert reading.sha256 == again.sha256 and len(reading.sha256) == 64
    other = opened(server, query=query.replace("ORDER", "WHERE customer > 2 ORDER"))
    list(other.chunks())
    assert other.sha256 != reading.sha256


def test_chunks_are_bounded(server: str) -> None:
    query = "SELECT i AS customer, now() AS placed, 1.5::float8 AS amount FROM generate_series(1, 1200000) i"
    sizes = [chunk.num_rows for chunk in opened(server, query=query).chunks()]
    assert sum(sizes) == 1_200_000 and max(sizes) <= 500_000


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ({"table": "public.nothing"}, "does not exist; correct data.source.table"),
        ({"query": "SELECT 1 AS customer"}, "no column 'placed'"),
        ({"query": "SELEC 1"}, "syntax error.*correct data.source.query"),
        (
            {"query": "WITH x AS (DELETE FROM orders RETURNING *) SELECT * FROM x"},
            "correct data.source.query",
        ),
    ],
)
def test_an_error_is_one_line_without_the_password(
    server: str, source: dict[str, str], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint) as error:
        list(opened(server, **source).chunks())
    assert PASSWORD not in str(error.value) and "\n" not in str(error.value)
    assert len(next(iter(opened(server).chunks()))) == 3


def test_a_query_cannot_write(server: str) -> None:
    query = "SELECT 1) TO STDOUT; DELETE FROM orders; COPY (SELECT 1"
    with pytest.raises(DataError):
        list(opened(server, query=query).chunks())
    assert len(next(iter(opened(server).chunks()))) == 3


def test_a_wrong_password_is_not_shown(server: str) -> None:
    wrong = server.replace(PASSWORD, "p@ss/wrong")
    with pytest.raises(DataError) as error:
        list(opened(wrong).chunks())
    assert "wrong" not in str(error.value) and "\n" not in str(error.value)

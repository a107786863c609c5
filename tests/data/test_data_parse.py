"""Cells as people and programs write them."""

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from data import parse


def column(*values: Any) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values)])


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2024-05-06", datetime(2024, 5, 6, tzinfo=UTC)),
        ("20240506", datetime(2024, 5, 6, tzinfo=UTC)),
        ("2024-05-06 07:08", datetime(2024, 5, 6, 7, 8, tzinfo=UTC)),
        ("2024-05-06T07:08:09.5Z", datetime(2024, 5, 6, 7, 8, 9, 500_000, tzinfo=UTC)),
        ("2024-05-06T07:08:09+02:00", datetime(2024, 5, 6, 5, 8, 9, tzinfo=UTC)),
        (" 2024-05-06 ", datetime(2024, 5, 6, tzinfo=UTC)),
        (20240506, datetime(2024, 5, 6, tzinfo=UTC)),
        (date(2024, 5, 6), datetime(2024, 5, 6, tzinfo=UTC)),
        (datetime(2024, 5, 6, 7), datetime(2024, 5, 6, 7, tzinfo=UTC)),
    ],
)
def test_moments_are_utc(written: object, moment: datetime) -> None:
    assert parse.moments(column(written)).to_pylist() == [moment]


@pytest.mark.parametrize(
    "written",
    ["now", "today", "2024", "2024-02-30", "05/06/2024", "1714979289", "0001-01-01", "3024-01-01", ""],
)
def test_a_moment_is_never_guessed(written: str) -> None:
    assert parse.moments(column(written, "2024-01-01T00:00Z"))[0].as_py() is None


def test_a_time_without_a_zone_does_not_take_its_neighbours() -> None:
    """pandas gives it the zone of the row above."""
    moments = parse.moments(column("2024-01-01T10:00+02:00", "2024-01-01T10:00", "2024-01-01T10:00-05:00"))
    assert [m.hour for m in moments.to_pylist()] == [8, 10, 15]


def test_a_declared_date_format() -> None:
    assert parse.moments(column("31.12.2024", "2024-12-31"), "%d.%m.%Y").to_pylist() == [
        datetime(2024, 12, 31, tzinfo=UTC),
        None,
    ]


def test_numbers_are_finite_or_null() -> None:
    written = column(" 1.5", "+2", ".5", "1e3", "-7", "inf", "nan", "0x10", "1,5", "1e999", "", None, "abc")
    assert parse.numbers(written).to_pylist() == [1.5, 2, 0.5, 1000, -7] + [None] * 8
    assert parse.numbers(column("1.234,50", "7"), decimal=",", thousands=".").to_pylist() == [1234.5, 7]
    assert parse.numbers(column(1.0, float("nan"), float("inf"))).to_pylist() == [1, None, None]


def test_integer_identifiers_have_one_value_however_they_are_written() -> None:
    written = column("00001", "1", "1.0", " 1 ", "-3", "1.5", "x", "", "99999999999999999999")
    assert parse.identifiers(written, "integer").to_pylist() == [1, 1, 1, 1, -3, None, None, None, None]
    assert parse.identifiers(column(7.0, float("nan")), "integer").to_pylist() == [7, None]


def test_string_identifiers_are_kept_to_the_letter() -> None:
    assert parse.identifiers(column("00001", " a", " "), "string").to_pylist() == ["00001", " a", None]


def test_further_columns_are_numbers_only_when_every_value_is_one() -> None:
    def kind(*values: Any) -> tuple[str, list[Any]]:
        read = parse.inferred(column(*values), ".", None)
        return str(read.type), read.to_pylist()

    assert kind("1", "2") == ("int64", [1, 2])
    assert kind("1", " ") == ("double", [1.0, None])
    assert kind("1", "2.5") == ("double", [1.0, 2.5])
    assert kind("1", "two") == ("string", ["1", "two"])
    assert kind(True, None) == ("string", ["true", None])
    assert kind("", None) == ("string", [None, None])
    assert kind(2**60, 1) == ("int64", [2**60, 1])


def test_a_forced_type_makes_null_of_what_it_cannot_read() -> None:
    assert parse.typed(column("1", "1.5", "x"), "int64", ".", None).to_pylist() == [1, None, None]
    assert parse.typed(column("1", "x"), "float64", ".", None).to_pylist() == [1.0, None]
    assert parse.typed(column("007"), "string", ".", None).to_pylist() == ["007"]

"""Parsing of cells in the notations of people and programs."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core.errors import DataError
from data.cell import complaints, parse
from data.cell.notation import Notation


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
def test_an_ambiguous_time_is_null(written: str) -> None:
    assert parse.moments(column(written, "2024-01-01T00:00Z"))[0].as_py() is None


def test_a_time_without_a_zone_does_not_get_the_zone_of_the_row_above() -> None:
    moments = parse.moments(column("2024-01-01T10:00+02:00", "2024-01-01T10:00", "2024-01-01T10:00-05:00"))
    assert [m.hour for m in moments.to_pylist()] == [8, 10, 15]


def test_a_declared_date_format() -> None:
    assert parse.moments(column("31.12.2024", "2024-12-31"), Notation(dates="%d.%m.%Y")).to_pylist() == [
        datetime(2024, 12, 31, tzinfo=UTC),
        None,
    ]


def test_numbers_are_finite_or_null() -> None:
    written = column(" 1.5", "+2", ".5", "1e3", "-7", "inf", "nan", "0x10", "1,5", "1e999", "", None, "abc")
    assert parse.numbers(written).to_pylist() == [1.5, 2, 0.5, 1000, -7] + [None] * 8
    assert parse.numbers(column("1.234,50", "7"), Notation(",", ".")).to_pylist() == [1234.5, 7]
    assert parse.numbers(column(1.0, float("nan"), float("inf"))).to_pylist() == [1, None, None]


def test_integer_identifiers_have_one_value_however_they_are_written() -> None:
    written = column("00001", "1", "1.0", " 1 ", "-3", "1.5", "x", "", "99999999999999999999")
    assert parse.identifiers(written, "integer").to_pylist() == [1, 1, 1, 1, -3, None, None, None, None]
    assert parse.identifiers(column(7.0, float("nan")), "integer").to_pylist() == [7, None]


def test_string_identifiers_are_not_changed() -> None:
    assert parse.identifiers(column("00001", " a", " "), "string").to_pylist() == ["00001", " a", None]


def test_further_columns_are_numbers_only_when_every_value_is_one() -> None:
    def kind(*values: Any) -> tuple[str, list[Any]]:
        read = parse.inferred(column(*values))
        return str(read.type), read.to_pylist()

    assert kind("1", "2") == ("int64", [1, 2])
    assert kind("1", " ") == ("double", [1.0, None])
    assert kind("1", "2.5") == ("double", [1.0, 2.5])
    assert kind("1", "two") == ("string", ["1", "two"])
    assert kind(True, None) == ("string", ["true", None])
    assert kind("", None) == ("string", [None, None])
    assert kind(2**60, 1) == ("int64", [2**60, 1])


def test_a_declared_type_makes_unreadable_values_null() -> None:
    assert parse.typed(column("1", "1.5", "x"), "int64").to_pylist() == [1, None, None]
    assert parse.typed(column("1", "x"), "float64").to_pylist() == [1.0, None]
    assert parse.typed(column("007"), "string").to_pylist() == ["007"]


def test_separators_between_wrong_groups_of_digits_make_a_text() -> None:
    german = Notation(decimal=",", thousands=".")
    written = column("31.12.2019", "10.0.0.1", "1.234", "1.234.567,5", "12.34", "1,5", "-1.234", "\u22123")
    assert parse.numbers(written, german).to_pylist() == [None, None, 1234, 1234567.5, None, 1.5, -1234, -3]
    english = column("1,2", "1,234", "12,34,567.5", "1,23", "1,2345", ",234")
    assert parse.numbers(english, Notation(thousands=",")).to_pylist() == [
        *(None, 1234, 1234567.5),
        *[None] * 3,
    ]
    assert parse.inferred(column("1,2", "3"), Notation(thousands=",")).to_pylist() == ["1,2", "3"]
    assert str(parse.inferred(column("30.11.2019", "1.12.2020"), german).type) == "string"
    swiss = parse.numbers(column("1'234.50", "1’234", "1 234"), Notation(thousands="'"))
    assert swiss.to_pylist() == [1234.5, 1234, None]


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        *(("$1,234.50", 1234.5), ("(12.50)", -12.5), ("($1,234)", -1234.0), ("-$5", -5.0), ("$-5", -5.0)),
        *(
            ("CHF 1'234.50", 1234.5),
            ("USD12", 12.0),
            ("12.50-", -12.5),
            ("R$ 10", 10.0),
            ("₹1,23,456", 123456.0),
        ),
        *(
            ("1 234.50 EUR", 1234.5),
            ("10.5 zł", 10.5),
            ("7", 7.0),
            ("ID12", None),
            ("12abc", None),
            ("$", None),
        ),
        *(("(12", None), ("12)", None), ("1.2.3", None), ("$1,23.5", None)),
    ],
)
def test_money(written: str, amount: float | None) -> None:
    assert parse.numbers(column(written, "x"), Notation(currency=True))[0].as_py() == amount
    assert (parse.numbers(column(written, "x"))[0].as_py() is not None) == (written == "7")


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\u202f", "\u2009"])
def test_money_with_any_kind_of_blank(blank: str) -> None:
    written = column(f"1{blank}234,50{blank}EUR", f"1{blank}234,50 €", "1.234,50 EUR")
    assert parse.numbers(written, Notation(decimal=",", currency=True)).to_pylist() == [1234.5] * 3
    assert parse.numbers(column(f"1{blank}234,50"), Notation(",", " ")).to_pylist() == [1234.5]


@pytest.mark.parametrize(
    ("dates", "written", "moment"),
    [
        ("day_first", "13/04/2023", "2023-04-13T00:00:00"),
        ("day_first", "12/1/2021 8:26", "2021-01-12T08:26:00"),
        ("day_first", "31.12.2021 23:59:59", "2021-12-31T23:59:59"),
        ("month_first", "12/1/2021 8:26", "2021-12-01T08:26:00"),
        ("month_first", "1/5/2023 3:04 PM", "2023-01-05T15:04:00"),
        ("month_first", "1/5/2023 12:30 am", "2023-01-05T00:30:00"),
        ("epoch_s", "1672531200", "2023-01-01T00:00:00"),
        ("epoch_s", 1672531200.25, "2023-01-01T00:00:00.250000"),
        ("epoch_ms", 1672531200123, "2023-01-01T00:00:00.123000"),
        ("epoch_us", "1672531200000001", "2023-01-01T00:00:00.000001"),
        ("epoch_ns", 1672531200000001000, "2023-01-01T00:00:00.000001"),
        ("%d-%b-%y", "05-Jan-23", "2023-01-05T00:00:00"),
        ("%Y-%m-%d %H:%M %z", "2023-01-05 10:00 +0200", "2023-01-05T08:00:00"),
    ],
)
def test_declared_formats_of_dates(dates: str, written: object, moment: str) -> None:
    read = parse.moments(column(written, None), Notation(dates=dates))
    assert read.to_pylist() == [datetime.fromisoformat(moment).replace(tzinfo=UTC), None]


@pytest.mark.parametrize(
    ("dates", "written"),
    [
        *(("day_first", w) for w in ("2023-04-13", "31/02/2021", "13/04/23", "04/13/2023", "1/1/2020 24:00")),
        *(
            ("month_first", w)
            for w in ("13/04/2023", "1/5/2023 13:00 PM", "1/5/2023 0:1 am", "1/5/2023 9:60")
        ),
        *(("epoch_s", w) for w in ("2023-01-01", "1672531200000", "1e300", "soon")),
        *(("iso", w) for w in ("13/04/2023", "1672531200", "1672531200000")),
    ],
)
def test_a_date_in_another_format_is_null(dates: str, written: str) -> None:
    assert parse.moments(column(written), Notation(dates=dates)).to_pylist() == [None]


def test_times_of_a_zone_where_the_clocks_change() -> None:
    """An ambiguous time is the earlier one; a skipped time is moved behind the gap."""
    berlin = Notation(timezone="Europe/Berlin")
    written = ["2023-01-01 12:00", "2023-07-01", "2023-10-29 02:30", "2023-03-26 02:30", "2023-03-26 03:00"]
    hours = ["2023-01-01 11", "2023-06-30 22", "2023-10-29 00", "2023-03-26 01", "2023-03-26 01"]
    for cells in (column(*written), column(*[datetime.fromisoformat(w) for w in written])):
        read = parse.moments(cells, berlin).to_pylist()
        assert [f"{m:%Y-%m-%d %H}" for m in read] == hours
    assert [m.minute for m in read] == [0, 0, 30, 0, 0]
    with_zone = column("2023-07-01T12:00Z", "2023-07-01T12:00")
    assert [m.hour for m in parse.moments(with_zone, berlin).to_pylist()] == [12, 10]
    assert parse.moments(column("1.7.2023 12:00"), Notation(dates="day_first", timezone="Europe/Berlin"))[
        0
    ].as_py() == datetime(2023, 7, 1, 10, tzinfo=UTC)


def test_every_integer_of_64_bits_is_an_identifier() -> None:
    written = column(
        str(2**63 - 1), str(-(2**63)), str(2**63), str(-(2**63) - 1), "1100000000000000001", "0", "-0"
    )
    expected = [2**63 - 1, -(2**63), None, None, 1100000000000000001, 0, 0]
    assert parse.identifiers(written, "integer").to_pylist() == expected
    assert parse.identifiers(column(2**63 - 1, None), "integer").to_pylist() == [2**63 - 1, None]
    assert parse.identifiers(
        pa.chunked_array([pa.array([2**63, 7], pa.uint64())]), "integer"
    ).to_pylist() == [None, 7]


def test_identifiers_in_floats() -> None:
    """pandas writes them as floats when one is missing."""
    floats = column(1e10, 17850.0, None, 2.0**53)
    assert parse.identifiers(floats, "integer").to_pylist() == [10**10, 17850, None, 2**53]
    assert parse.identifiers(floats, "string").to_pylist() == ["10000000000", "17850", None, str(2**53)]
    with pytest.raises(DataError, match="beyond 2\\*\\*53 a float loses digits"):
        parse.identifiers(column(1.1e18), "integer")


def test_words_are_missing_only_where_they_are_declared_or_among_numbers() -> None:
    assert parse.inferred(column("NA", "DE")).to_pylist() == ["NA", "DE"]
    assert parse.inferred(column("None", "None")).to_pylist() == ["None", "None"]
    assert parse.inferred(column("NA", "1.5", "null", "N/A")).to_pylist() == [None, 1.5, None, None]
    assert parse.inferred(column("?", "1.5")).to_pylist() == ["?", "1.5"]
    assert parse.inferred(column("?", "1.5"), Notation(missing=("?",))).to_pylist() == [None, 1.5]
    assert parse.inferred(column("?", "a"), Notation(missing=("?",))).to_pylist() == [None, "a"]
    for numbers in (column("-999", "1"), column(-999, 1), column(-999.0, 1.0)):
        assert parse.inferred(numbers, Notation(missing=("-999",))).to_pylist() == [None, 1]


def test_a_column_is_text_when_a_number_would_lose_digits() -> None:
    assert parse.inferred(column("01067", "10115")).to_pylist() == ["01067", "10115"]
    assert parse.inferred(column("0", "0.5", "-0.5")).to_pylist() == [0, 0.5, -0.5]
    assert parse.inferred(column(str(2**62), "1")).to_pylist() == [2**62, 1]
    assert parse.inferred(column(str(2**62), None)).to_pylist() == [str(2**62), None]
    assert parse.inferred(column("9" * 20, "1")).to_pylist() == ["9" * 20, "1"]


NOTATIONS = [
    Notation(decimal, thousands, currency)
    for decimal, thousands in [(".", None), (".", ","), (",", "."), (",", " "), (".", "'"), (",", None)]
    for currency in (False, True)
]


@given(
    st.decimals(min_value=-(10**12), max_value=10**12, places=2),
    st.sampled_from(NOTATIONS),
    st.sampled_from(["", "$", "€ ", "CHF ", "R$"]),
    st.booleans(),
)
def test_a_number_is_read_from_every_notation(
    value: Decimal, notation: Notation, sign: str, brackets: bool
) -> None:
    written = f"{abs(value):,.2f}".replace(",", "T").replace(".", notation.decimal)
    written = written.replace("T", notation.thousands or "")
    written = (sign if notation.currency else "") + written
    if value < 0:
        written = f"({written})" if brackets and notation.currency else f"-{written}"
    assert parse.numbers(column(written), notation).to_pylist() == [float(value)]


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2037, 1, 1)),  # Arrow has no summer time after 2037
    st.sampled_from(["iso", "day_first", "month_first", "epoch_us", "epoch_ns", "%d.%m.%Y %H:%M:%S.%f"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Europe/Dublin"]),
)
def test_a_time_is_read_from_every_format(moment: datetime, dates: str, zone: str) -> None:
    """Written in local time; the reference is Python's zone database."""
    local = moment.replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
    assume(local.fold == 0 and local.utcoffset() % timedelta(minutes=1) == timedelta(0))
    micros = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    naive = local.replace(tzinfo=None)
    written = {
        "iso": naive.isoformat(),
        "day_first": f"{naive.day}/{naive.month}/{naive:%Y %H:%M:%S.%f}",
        "month_first": f"{naive.month}/{naive.day}/{naive:%Y %H:%M:%S.%f}",
        "epoch_us": str(micros),
        "epoch_ns": str(micros * 1000),
    }.get(dates) or naive.strftime(dates)
    read = parse.moments(column(written), Notation(dates=dates, timezone=zone))
    assert read.to_pylist() == [moment.replace(tzinfo=UTC)]


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(["{}", " {} ", "{}.0", "{}."]))
def test_an_identifier_is_read_from_every_spelling(value: int, spelling: str) -> None:
    assert parse.identifiers(column(spelling.format(value)), "integer").to_pylist() == [value]
    assert parse.typed(column(str(value)), "int64").to_pylist() == [value]


@pytest.mark.parametrize(
    ("cells", "remedy"),
    [
        (("$1,234.50", "$5"), "set data.source.currency to true"),
        (("29,88", "1,5"), "set data.source.options.decimal to ','"),
        (
            ("1.234,50", "2.000,00"),
            "set data.source.options.decimal to ',' and data.source.options.thousands to '.'",
        ),
        (("1,234.50", "2,000.00"), "set data.source.options.thousands to ','"),
        (("1.234,50 EUR", "12,5 EUR"), "options.decimal to ',' and data.source.currency to true"),
        (("many", "few"), ""),
    ],
)
def test_the_remedy_for_numbers_in_another_notation(cells: tuple[str, ...], remedy: str) -> None:
    assert remedy in complaints.not_a_number(column(*cells), Notation())
    assert ("set" in complaints.not_a_number(column(*cells), Notation())) == bool(remedy)


@pytest.mark.parametrize(
    ("cells", "remedy"),
    [
        (("1672531200", "1672531201"), "looks like epoch numbers; set data.source.dates to epoch_s"),
        ((1672531200000, 1672531200001), "looks like epoch numbers; set data.source.dates to epoch_ms"),
        (("13/04/2023", "1/5/2023"), "set data.source.dates to day_first"),
        (("04/13/2023", "1/5/2023"), "set data.source.dates to month_first"),
        (("4/3/2023", "1/5/2023"), "set data.source.dates to day_first or month_first"),
        (("soon", "later"), "is not an ISO 8601 date"),
    ],
)
def test_the_remedy_for_dates_in_another_format(cells: tuple[Any, ...], remedy: str) -> None:
    complaint = complaints.not_a_date(column(*cells), Notation())
    assert complaint.endswith(remedy) or (cells[0] == "soon" and remedy in complaint)

"""Validation: expectations with their names in Great Expectations, and the results."""

import json
import socket
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from core.errors import DataError
from data.judge.outcomes import failed
from data.judge.validate import validate
from support.data_tables import AS_OF


def records(**columns: Any) -> pa.Table:
    rows = {
        "user_id": ["ann-01", "bob-02", "cid-03"],
        "timestamp": pa.array(
            [datetime(2024, m, 1, tzinfo=UTC) for m in (1, 2, 3)], pa.timestamp("us", tz="UTC")
        ),
        "amount": [1.0, -2.0, 3.0],
        "age": [17, 30, None],
        "segment": ["gold", None, "brass"],
        **columns,
    }
    return pa.table(rows)


@pytest.fixture(params=[4_000_000, 2], autouse=True)
def rows_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of rows give the same results as all rows at once."""
    monkeypatch.setattr("data.judge.validate.ROWS_AT_ONCE", request.param)


def outcome(expectation: dict[str, Any], as_of: datetime = AS_OF, **columns: Any) -> dict[str, Any]:
    return validate(records(**columns), [expectation], as_of)[-1]


@pytest.mark.parametrize(
    "expectation",
    [
        {"type": "expect_column_to_exist", "column": "amount"},
        {"type": "expect_column_values_to_not_be_null", "column": "user_id"},
        {"type": "expect_column_values_to_be_between", "column": "age", "min_value": 17, "max_value": 120},
        {"type": "expect_column_values_to_be_in_set", "column": "segment", "value_set": ["gold", "brass"]},
        {"type": "expect_column_values_to_match_regex", "column": "segment", "regex": "^[a-z]+$"},
        {"type": "expect_column_values_to_be_unique", "column": "user_id"},
        {"type": "expect_table_row_count_to_be_between", "min_value": 3, "max_value": 3},
        {"type": "expect_column_values_to_be_between", "column": "amount", "min_value": 0, "mostly": 0.6},
        {"type": "expect_column_values_to_be_between", "column": "timestamp", "min_value": "2024-01-01"},
        {
            "type": "expect_column_values_to_be_between",
            "column": "timestamp",
            "max_value": datetime(2024, 3, 1).date(),
        },
    ],
)
def test_expectations_that_hold(expectation: dict[str, Any]) -> None:
    assert outcome(expectation)["success"], outcome(expectation)


@pytest.mark.parametrize(
    ("expectation", "found"),
    [
        (
            {"type": "expect_column_to_exist", "column": "target"},
            "no column target; there are user_id, timestamp,",
        ),
        (
            {"type": "expect_column_values_to_be_between", "column": "amount", "min_value": 0},
            "1 of 3 values (33.3 %), such as -2.0",
        ),
        (
            {
                "type": "expect_column_values_to_be_between",
                "column": "age",
                "min_value": 18,
                "max_value": 120,
            },
            "1 of 3 values (50 %), such as 17",
        ),
        ({"type": "expect_table_row_count_to_be_between", "min_value": 1000}, "3"),
        (
            {"type": "expect_column_values_to_be_between", "column": "timestamp", "max_value": "2024-02-15"},
            "1 of 3 values (33.3 %), such as 2024-03-01T00:00:00+00:00",
        ),
        ({"type": "expect_column_values_to_be_between", "column": "nope", "min_value": 0}, "no column nope"),
    ],
)
def test_failed_expectations_report_what_was_found(expectation: dict[str, Any], found: str) -> None:
    result = outcome(expectation)
    assert not result["success"]
    assert result["found"].startswith(found)


def test_an_expectation_that_cannot_be_judged_has_failed() -> None:
    result = outcome({"type": "expect_column_values_to_be_between", "column": "segment", "min_value": 1})
    assert not result["success"] and result["found"].startswith("cannot be judged: ")


def test_no_outcome_contains_an_identifier_or_a_text() -> None:
    suite = [
        {"type": "expect_column_values_to_match_regex", "column": "user_id", "regex": "^x"},
        {"type": "expect_column_value_lengths_to_equal", "column": "user_id", "value": 9},
        {"type": "expect_column_values_to_match_regex", "column": "segment", "regex": "^x"},
        {"type": "expect_column_distinct_values_to_be_in_set", "column": "user_id", "value_set": ["x"]},
        {"type": "expect_column_max_to_be_between", "column": "user_id", "max_value": 5},
        {"type": "expect_column_mean_to_be_between", "column": "user_id", "max_value": 5},
        {"type": "expect_column_most_common_value_to_be_in_set", "column": "segment", "value_set": ["x"]},
    ]
    outcomes = validate(records(), suite, AS_OF)
    shown = json.dumps([o["found"] for o in outcomes])
    assert len(failed(outcomes)) == len(suite)
    assert not any(text in shown for text in ("ann-01", "bob-02", "cid-03", "gold", "brass"))


def test_optional_expectations_are_skipped_without_their_column() -> None:
    optional = {"type": "expect_column_to_exist", "column": "target", "optional": True}
    assert not any(o["column"] == "target" for o in validate(records(), [optional], AS_OF))
    present = {
        "type": "expect_column_values_to_be_between",
        "column": "age",
        "min_value": 18,
        "optional": True,
    }
    assert not outcome(present)["success"]


def test_rows_from_as_of_on_fail_whatever_the_config_contains() -> None:
    after = validate(records(), [], datetime(2024, 3, 1, 0, 0, 1, tzinfo=UTC))
    assert failed(after) == []
    at = failed(validate(records(), [], datetime(2024, 3, 1, tzinfo=UTC)))
    assert [(row["column"], row["found"]) for row in at] == [
        ("timestamp", "1 of 3 values (33.3 %), such as 2024-03-01T00:00:00+00:00")
    ]


def test_outcomes_are_in_the_order_of_the_config() -> None:
    suite = [
        {"type": "expect_table_row_count_to_be_between", "min_value": 1},
        {"type": "expect_column_to_exist", "column": "timestamp"},
        {"type": "expect_column_to_exist", "column": "age"},
    ]
    configured = validate(records(), suite, AS_OF)[-3:]
    assert [o["expectation"] for o in configured] == [e["type"] for e in suite]
    assert [o["column"] for o in configured] == ["", "timestamp", "age"]


@pytest.mark.parametrize(
    ("expectation", "complaint"),
    [
        ({"type": "expect_column_to_exists", "column": "a"}, "did you mean expect_column_to_exist?"),
        ({"column": "a"}, "no expectation is called None"),
        ({"type": "expect_column_to_exist"}, "expect_column_to_exist: column: field required"),
        (
            {"type": "expect_column_to_exist", "column": "a", "colour": 1},
            "colour: extra fields not permitted",
        ),
    ],
)
def test_an_invalid_expectation_is_refused(expectation: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError, match=r"data\.expectations: ") as error:
        validate(records(), [expectation], AS_OF)
    assert complaint.replace("?", "") in str(error.value) and "\n" not in str(error.value)


def test_nothing_is_printed_and_no_connection_is_opened(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*address: object) -> None:
        raise AssertionError(f"called {address}")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    validate(
        records(), [{"type": "expect_column_values_to_be_between", "column": "nope", "min_value": 0}], AS_OF
    )
    assert capfd.readouterr() == ("", "")

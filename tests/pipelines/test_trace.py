"""Finding one prediction in the log; tests/pipelines/test_loop.py follows one through the whole chain."""

from pathlib import Path

import pytest

from churn.cli import main
from core.errors import DataError
from handlers.records.record import Origin, schema_of, to_arrow
from handlers.records.segments import ParquetSegments
from pipelines.trace.link import Link, Proof, same
from pipelines.trace.prediction import features_of, find_prediction, link_of
from support.prediction_records import ORIGIN, TYPES, records

FIRST, SECOND = f"u_{1:032x}", f"u_{2:032x}"


def write_log(folder: Path, *numbers: int, origin: Origin = ORIGIN) -> None:
    schema = schema_of(origin)
    sink = ParquetSegments(folder, 60.0)
    sink.open(schema)
    sink.write(to_arrow([records(*numbers)], origin, schema))
    sink.close()


def test_a_prediction_is_found_in_any_of_several_logs_with_its_features(tmp_path: Path) -> None:
    write_log(tmp_path / "one", 1, 2, 3)
    write_log(tmp_path / "two", 4)
    found = find_prediction([tmp_path / "one", tmp_path / "two"], "4", None)
    assert found["user_id"] == f"u_{4:032x}" and found["score"] == 0.75
    assert set(features_of(found)) == set(TYPES) and features_of(found)["segment"] == "a"
    assert not {name for name in link_of(found).facts if name.startswith("feature_")}


def test_a_prediction_that_is_in_no_log_gets_one_clear_line(tmp_path: Path) -> None:
    write_log(tmp_path / "one", 1)
    with pytest.raises(DataError, match=r"prediction 17: not in .*one; take the request_id"):
        find_prediction([tmp_path / "one"], "17", None)
    with pytest.raises(DataError, match="no prediction log"):
        find_prediction([], "17", None)


def test_the_command_ends_with_2_and_one_line_for_an_unknown_prediction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(tmp_path / "ws" / "serving" / "predictions", 1)
    assert main(["trace", "17", "--set", f"workspace={tmp_path / 'ws'}"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("churn: ")]
    assert "17" in line and "request_id" in line


def test_a_request_about_several_customers_needs_the_customer(tmp_path: Path) -> None:
    both = records(1, 2)
    both = type(both)(**{name: getattr(both, name) for name in both.__slots__} | {"request_ids": ["r", "r"]})
    sink = ParquetSegments(tmp_path, 60.0)
    sink.open(schema_of(ORIGIN))
    sink.write(to_arrow([both], ORIGIN, schema_of(ORIGIN)))
    sink.close()
    with pytest.raises(DataError, match="2 customers; name one with --customer"):
        find_prediction([tmp_path], "r", None)
    assert find_prediction([tmp_path], "r", SECOND)["user_id"] == SECOND
    with pytest.raises(DataError, match="not about this customer"):
        find_prediction([tmp_path], "r", f"u_{9:032x}")


def test_of_two_variants_that_scored_a_customer_the_one_that_answered_is_traced(tmp_path: Path) -> None:
    canary = Origin("v2", "e" * 64, "canary", 0.5, {**TYPES, "further": "float64"})
    plain = records(1)
    wider = type(plain)(
        **{name: getattr(plain, name) for name in plain.__slots__}
        | {"columns": {**plain.columns, "further": [1.0]}}
    )
    for origin, batch in ((canary, wider), (ORIGIN, plain)):
        sink = ParquetSegments(tmp_path / origin.variant, 60.0)
        sink.open(schema_of(origin))
        sink.write(to_arrow([batch], origin, schema_of(origin)))
        sink.close()
    assert find_prediction([tmp_path], "1", FIRST)["model_version"] == "v1"


def test_a_link_holds_only_with_all_of_its_proofs() -> None:
    right, wrong = same("digest", "a" * 64, "a" * 64), same("digest", None, "a" * 64)
    assert right.holds and not wrong.holds and "missing" in wrong.statement
    assert Link("archive", {}, [right]).holds
    assert not Link("archive", {}, [right, wrong, Proof("signature", True)]).holds

"""The handler's whole road on a real feature store and a real exported program, without a server."""

import json
import logging
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_bundle import FRESH, KEY, NOW, REPOSITORY, SPEC, STALE, UNKNOWN, ServedBundle

from handlers import features
from handlers.bundle import BundleError
from handlers.identity import mask
from handlers.predictor import Predictor, load, read_mask_key


@pytest.fixture(scope="module")
def predictor(bundle: ServedBundle) -> Predictor:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bundle.store_environment.items():
            patch.setenv(name, value)
        loaded = load(bundle.model_dir, bundle.environment, "churn")
    return replace(loaded, clock=lambda: NOW)


def ask(predictor: Predictor, *bodies: Any) -> list[tuple[int, Any]]:
    rows = [{"body": body if isinstance(body, bytes) else json.dumps(body).encode()} for body in bodies]
    return [(answer.http_status, json.loads(answer.body)) for answer in predictor.answer(rows)]


def v2(ids: list[int]) -> dict[str, Any]:
    return {"inputs": [{"name": "user_id", "shape": [len(ids)], "datatype": "INT64", "data": ids}]}


def test_the_answer_holds_the_features_of_the_store(bundle: ServedBundle, predictor: Predictor) -> None:
    row = bundle.customers.set_index("user_id").loc[mask("3", KEY)]
    [(code, answer)] = ask(predictor, {"user_id": 3})
    assert code == 200
    assert answer["user_id"] == 3
    assert answer["features"] == {
        "total_purchases": row["total_purchases"],
        "avg_purchase_amount": row["avg_purchase_amount"],
        "tenure_months": row["tenure_months"],
        "purchase_frequency": row["total_purchases"] / max(row["tenure_months"], 1.0),
        "customer_segment": row["customer_segment"],
    }
    assert answer["prediction"] == ("High Risk" if answer["churn_probability"] > 0.5 else "Low Risk")


def test_a_customer_gets_the_same_bits_by_every_protocol_and_in_every_batch(predictor: Predictor) -> None:
    alone = {i: ask(predictor, {"user_id": i})[0][1]["churn_probability"] for i in FRESH}
    for size in (2, 3, 7, 16, 63, 64, 65, 100, 200):
        ids = np.random.default_rng(size).permutation(FRESH)[:size].tolist()
        answers = ask(
            predictor,
            {"instances": [{"user_id": i} for i in ids]},
            v2(ids),
            *({"user_id": i} for i in ids[:5]),
        )
        expected = [alone[i] for i in ids]
        assert [p["churn_probability"] for p in answers[0][1]["predictions"]] == expected
        assert answers[1][1]["outputs"][0]["data"] == expected
        assert [answer["churn_probability"] for _, answer in answers[2:]] == expected[:5]


def test_raw_and_masked_ids_are_the_same_customer(predictor: Predictor) -> None:
    masked = mask("3", KEY)
    (_, raw), (_, known) = ask(predictor, {"user_id": 3}, {"user_id": masked})
    assert known == raw | {"user_id": masked}


def test_old_features_are_marked_and_unknown_customers_refused(predictor: Predictor) -> None:
    stale, unknown, several = ask(
        predictor,
        {"user_id": STALE[0]},
        {"user_id": UNKNOWN},
        [{"user_id": UNKNOWN}, {"user_id": 1}, {"user_id": UNKNOWN}],
    )
    assert (stale[0], stale[1]["status"]) == (200, "stale")
    assert unknown == (404, {"user_id": UNKNOWN, "error": "unknown user_id", "churn_probability": None})
    assert [one.get("error") for one in several[1]] == ["unknown user_id", None, "unknown user_id"]


def test_the_ttl_ends_exactly_where_the_spec_says(bundle: ServedBundle, predictor: Predictor) -> None:
    taken = NOW - timedelta(days=1)
    for age, status in ((timedelta(days=35), "ok"), (timedelta(days=35, microseconds=1), "stale")):
        aged = replace(predictor, clock=lambda age=age: taken + age)
        assert ask(aged, {"user_id": 1})[0][1]["status"] == status


def test_the_clock_offset_moves_the_handlers_time(predictor: Predictor, bundle: ServedBundle) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bundle.store_environment.items():
            patch.setenv(name, value)
        shifted = load(bundle.model_dir, bundle.environment, "churn")
    assert abs(shifted.clock() - NOW) < timedelta(minutes=10)


def test_a_batch_is_one_read_of_distinct_customers(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    original = features.read

    def counted(store: Any, service: Any, bundle: Any, ids: Any, now: datetime) -> features.Vectors:
        reads.append(list(ids))
        return original(store, service, bundle, ids, now)

    monkeypatch.setattr(features, "read", counted)
    ask(predictor, {"user_id": 1}, b"{bad", v2([2, 1]), [{"user_id": 2}, {"user_id": mask("1", KEY)}])
    assert reads == [[mask("1", KEY), mask("2", KEY)]]


def test_a_dead_store_is_a_503_for_those_who_need_it(
    bundle: ServedBundle,
    predictor: Predictor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError("no such table: secret_table")

    monkeypatch.setattr(predictor.store, "get_online_features", broken)
    with caplog.at_level(logging.DEBUG):
        good, bad = ask(predictor, {"user_id": 1}, {"user_id": "x"})
    assert good == (503, {"error": "the feature store cannot be read now; try again later"})
    assert bad[0] == 400
    assert "OperationalError" in caplog.text
    assert "secret_table" not in caplog.text
    assert mask("1", KEY) not in caplog.text


def test_a_score_that_is_no_number_is_refused_alone(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_is_nan(columns: Any) -> Any:
        return np.array([np.nan, 0.25])

    monkeypatch.setattr(predictor.scorer, "score", first_is_nan)
    broken, fine = ask(predictor, {"user_id": 1}, {"user_id": 2})
    assert (broken[0], broken[1]["churn_probability"]) == (503, None)
    assert (fine[0], fine[1]["churn_probability"]) == (200, 0.25)


def test_a_read_without_a_server_equals_what_was_written(bundle: ServedBundle, predictor: Predictor) -> None:
    written = bundle.customers
    ids = written["user_id"].tolist()
    vectors = features.read(predictor.store, predictor.service, predictor.bundle, ids, NOW)
    for feature in SPEC.features:
        kept = written[feature.name].astype(object).where(written[feature.name].notna(), None).tolist()
        assert list(vectors.columns[feature.name]) == kept
    assert set(vectors.timestamps) == {NOW - timedelta(days=1), NOW - timedelta(days=60)}
    assert all(t is not None and t.tzinfo is UTC for t in vectors.timestamps)


def test_the_mask_key_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("abc\n")
    assert read_mask_key({"CHURN_MASK_KEY_FILE": str(file)}) == read_mask_key({"CHURN_MASK_KEY": "abc"})
    for environment in ({}, {"CHURN_MASK_KEY": " "}, {"CHURN_MASK_KEY_FILE": str(tmp_path / "none")}):
        with pytest.raises(BundleError, match="CHURN_MASK_KEY"):
            read_mask_key(environment)


@pytest.mark.parametrize(
    ("without", "complaint"),
    [("CHURN_FEAST_ONLINE", "CHURN_FEAST_ONLINE is not set"), ("CHURN_MASK_KEY", "no mask key")],
)
def test_a_missing_variable_is_named(
    bundle: ServedBundle, monkeypatch: pytest.MonkeyPatch, without: str, complaint: str
) -> None:
    environment = {name: value for name, value in bundle.environment.items() if name != without}
    for name in bundle.store_environment:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(without, raising=False)
    with pytest.raises(BundleError, match=complaint):
        load(bundle.model_dir, environment, "churn")


ALONE = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in str(f).lower()]
sys.path[:] = [p for p in sys.path if p != {repository!r}]
sys.path.insert(0, {model_dir!r})
import churn_handler, handlers

class Context:
    system_properties = {{"model_dir": {model_dir!r}}}
    model_name = "churn"
    statuses = []
    def set_response_status(self, code, phrase, idx): self.statuses.append((idx, code, phrase))
    def set_response_content_type(self, idx, value): assert value == "application/json"

handler = churn_handler.ChurnHandler()
handler.initialize(Context())
bodies = handler.handle([{{"body": b'{{"user_id": 1}}'}}, {{"body": b"?"}}], Context())
assert Context.statuses == [(0, 200, "OK"), (1, 400, "Bad Request")], Context.statuses
assert b"churn_probability" in bodies[0], bodies
assert handlers.__file__.startswith({model_dir!r}), handlers.__file__
rooms = {{"churn", "pipelines", "serving", "training", "model", "features", "data"}} & set(sys.modules)
assert not rooms, rooms
assert "ts" not in sys.modules
"""


def test_the_unpacked_archive_serves_without_the_repository(bundle: ServedBundle, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(bundle.archive) as archive:
        archive.extractall(tmp_path / "unpacked")
    script = ALONE.format(repository=str(REPOSITORY), model_dir=str(tmp_path / "unpacked"))
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **bundle.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

"""All stages of the predictor, with a real feature store and a real exported program, without a server."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handlers import predictor as predictor_module
from handlers import telemetry
from handlers.bookkeeping import Bookkeeping
from handlers.bundle import BundleError
from handlers.identity import PROBE_ID, THROUGH_GATEWAY, mask
from handlers.loading import load
from handlers.predictor import Predictor
from handlers.protocol.messages import Call
from handlers.records.record import Records
from handlers.store.reader import FeatureStoreUnavailable, OnlineFeatures, Vectors
from handlers.telemetry import Telemetry
from support.served_bundle import FRESH, KEY, NOW, REPOSITORY, SPEC, STALE, UNKNOWN, ServedBundle


@pytest.fixture(scope="module")
def predictor(bundle: ServedBundle) -> Predictor:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bundle.store_environment.items():
            patch.setenv(name, value)
        loaded = load(bundle.model_dir, bundle.environment, "churn")
    return replace(loaded, clock=lambda: NOW)


@dataclass(frozen=True)
class ReplacedStore:
    """Replaces the store in tests of behaviour that a real store does not show on demand."""

    store: OnlineFeatures

    def read(self, ids: Sequence[str], now: datetime) -> Vectors:
        return self.store.read(ids, now)


class RecordedLog:
    """Replaces the prediction log."""

    def __init__(self) -> None:
        self.records: list[Records] = []

    def append(self, records: Records) -> None:
        self.records.append(records)


def with_features(predictor: Predictor, store: ReplacedStore) -> Predictor:
    return replace(predictor, features=store, telemetry=Telemetry())  # type: ignore[arg-type]


def answers_to(predictor: Predictor, *bodies: Any) -> list[tuple[int, Any]]:
    rows = [{"body": body if isinstance(body, bytes) else json.dumps(body).encode()} for body in bodies]
    return [(answer.http_status, json.loads(answer.body)) for answer in predictor.answer(rows)]


def v2(ids: list[int]) -> dict[str, Any]:
    return {"inputs": [{"name": "user_id", "shape": [len(ids)], "datatype": "INT64", "data": ids}]}


def test_the_answer_contains_the_features_of_the_store(bundle: ServedBundle, predictor: Predictor) -> None:
    row = bundle.customers.set_index("user_id").loc[mask("3", KEY)]
    [(code, answer)] = answers_to(predictor, {"user_id": 3})
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


def test_a_customer_gets_the_same_bits_in_each_protocol_and_batch(predictor: Predictor) -> None:
    alone = {i: answers_to(predictor, {"user_id": i})[0][1]["churn_probability"] for i in FRESH}
    for size in (2, 3, 7, 16, 63, 64, 65, 100, 200):
        ids = np.random.default_rng(size).permutation(FRESH)[:size].tolist()
        answers = answers_to(
            predictor,
            {"instances": [{"user_id": i} for i in ids]},
            v2(ids),
            *({"user_id": i} for i in ids[:5]),
        )
        expected = [alone[i] for i in ids]
        assert [p["churn_probability"] for p in answers[0][1]["predictions"]] == expected
        assert answers[1][1]["outputs"][0]["data"] == expected
        assert [answer["churn_probability"] for _, answer in answers[2:]] == expected[:5]


def test_raw_and_masked_ids_name_the_same_customer(predictor: Predictor) -> None:
    masked = mask("3", KEY)
    (_, raw), (_, of_masked) = answers_to(predictor, {"user_id": 3}, {"user_id": masked})
    assert of_masked == raw | {"user_id": masked}


def test_old_features_are_marked_and_unknown_customers_refused(predictor: Predictor) -> None:
    stale, unknown, several = answers_to(
        predictor,
        {"user_id": STALE[0]},
        {"user_id": UNKNOWN},
        [{"user_id": UNKNOWN}, {"user_id": 1}, {"user_id": UNKNOWN}],
    )
    assert (stale[0], stale[1]["status"]) == (200, "stale")
    assert unknown == (404, {"user_id": UNKNOWN, "error": "unknown user_id", "churn_probability": None})
    assert [one.get("error") for one in several[1]] == ["unknown user_id", None, "unknown user_id"]


def test_the_ttl_is_that_of_the_spec_to_the_microsecond(bundle: ServedBundle, predictor: Predictor) -> None:
    taken = NOW - timedelta(days=1)
    for age, status in ((timedelta(days=35), "ok"), (timedelta(days=35, microseconds=1), "stale")):
        aged = replace(predictor, clock=lambda age=age: taken + age)
        assert answers_to(aged, {"user_id": 1})[0][1]["status"] == status


def test_the_clock_offset_changes_the_time_of_the_handler(predictor: Predictor, bundle: ServedBundle) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bundle.store_environment.items():
            patch.setenv(name, value)
        shifted = load(bundle.model_dir, bundle.environment, "churn")
    assert abs(shifted.clock() - NOW) < timedelta(minutes=10)


def test_a_batch_is_one_read_of_distinct_customers(predictor: Predictor) -> None:
    reads = []

    class Counted(ReplacedStore):
        def read(self, ids: Sequence[str], now: datetime) -> Vectors:
            reads.append(list(ids))
            return super().read(ids, now)

    answers_to(
        with_features(predictor, Counted(predictor.features)),
        {"user_id": 1},
        b"{bad",
        v2([2, 1]),
        [{"user_id": 2}, {"user_id": mask("1", KEY)}],
    )
    assert reads == [[mask("1", KEY), mask("2", KEY)]]


def test_without_the_store_requests_that_need_it_get_a_503(predictor: Predictor) -> None:
    class Down(ReplacedStore):
        def read(self, ids: Sequence[str], now: datetime) -> Vectors:
            error = FeatureStoreUnavailable("OperationalError")
            error.retry_after_s = 2.5
            raise error

    down = with_features(predictor, Down(predictor.features))
    rows = [{"body": b'{"user_id": 1}'}, {"body": b'{"user_id": "x"}'}]
    good, bad = down.answer(rows)
    assert (good.http_status, good.headers) == (503, {"Retry-After": "3"})
    assert json.loads(good.body) == {
        "error": "the feature store cannot be read now; try again later",
        "code": "feature_store_unavailable",
    }
    assert bad.http_status == 400
    # The store is not read for a batch without customers.
    assert [code for code, _ in answers_to(down, b"{bad", {"user_id": "x"})] == [400, 400]


def test_only_the_customer_without_a_finite_score_is_refused(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_is_nan(columns: Any) -> Any:
        return np.array([np.nan, 0.25])

    monkeypatch.setattr(predictor.scorer, "score", first_is_nan)
    broken, fine = answers_to(predictor, {"user_id": 1}, {"user_id": 2})
    assert (broken[0], broken[1]["churn_probability"], broken[1]["code"]) == (503, None, "no_score")
    assert (fine[0], fine[1]["churn_probability"]) == (200, 0.25)


@pytest.mark.parametrize("listed", ["instances", "body"])
def test_a_score_that_is_not_finite_refuses_the_whole_list(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, listed: str
) -> None:
    """With status 200 the gateway would not try the stable variant, and no rule would count the error."""
    counted = replace(predictor, telemetry=Telemetry())
    monkeypatch.setattr(counted.scorer, "score", lambda columns: np.array([0.25, np.inf, 0.5]))
    customers = [{"user_id": 1}, {"user_id": 2}]
    body = {"instances": customers} if listed == "instances" else customers
    answer = counted.answer([{"body": json.dumps(body).encode()}, {"body": b'{"user_id": 3}'}])
    # The single customer is read first.
    assert [one.http_status for one in answer] == [503, 200]
    assert json.loads(answer[0].body)["code"] == "no_score"
    assert json.loads(answer[0].body)["error"].startswith(f"{listed}[0]: ")
    counters = counted.telemetry.snapshot()[0]
    protocol = "v1" if listed == "instances" else "native_list"
    assert counters["churn_requests_total", ("", "", protocol, "503")] == 1
    assert counters["churn_errors_total", ("", "", telemetry.NO_SCORE)] == 1
    assert "no finite score for 1 of 3 rows" in caplog.text


def test_health_reports_the_worker_and_the_store_separately(bundle: ServedBundle, tmp_path: Path) -> None:
    database = tmp_path / "online.db"
    database.write_bytes(Path(bundle.environment["CHURN_FEAST_ONLINE"]).read_bytes())
    environment = bundle.environment | {"CHURN_FEAST_ONLINE": str(database)}
    loaded = replace(load(bundle.model_dir, environment, "churn"), clock=lambda: NOW)
    healthy = {"healthy": True, "reader": "sqlite", "breaker": "closed"}
    version = {"model_version": "0123456789ab"}
    assert loaded.health() == {"live": True, "ready": True, "degraded": False, "store": healthy, **version}
    assert answers_to(loaded, {"user_id": 1})[0][1]["status"] == "ok"
    database.unlink()
    # The gateway's health check, a customer whom this worker has read, and another one.
    probe = {"instances": [{"user_id": PROBE_ID}]}
    answers = answers_to(loaded, probe, {"user_id": 1}, {"user_id": 2})
    assert [code for code, _ in answers] == [200, 200, 503]
    assert answers[1][1]["status"] == "degraded"
    assert [code for code, _ in answers_to(loaded, probe)] == [200]
    assert [loaded.health()[name] for name in ("live", "ready", "degraded")] == [True, True, True]
    assert loaded.health()["store"]["healthy"] is False
    # A worker that starts without the store is ready as well.
    late = load(bundle.model_dir, environment, "churn")
    assert (answers_to(late, probe)[0][0], late.health()["degraded"]) == (200, True)


def test_features_are_read_as_they_were_written(bundle: ServedBundle, predictor: Predictor) -> None:
    written = bundle.customers
    ids = written["user_id"].tolist()
    vectors = predictor.features.read(ids, NOW)
    for feature in SPEC.features:
        written_values = (
            written[feature.name].astype(object).where(written[feature.name].notna(), None).tolist()
        )
        assert list(vectors.columns[feature.name]) == written_values
    assert set(vectors.timestamps) == {NOW - timedelta(days=1), NOW - timedelta(days=60)}
    assert all(t is not None and t.tzinfo is UTC for t in vectors.timestamps)


@pytest.mark.parametrize(
    ("without", "complaint"),
    [("CHURN_FEAST_ONLINE", "CHURN_FEAST_ONLINE is not set"), ("CHURN_MASK_KEY", "no mask key")],
)
def test_the_error_names_a_missing_variable(
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


def test_a_what_if_question_changes_only_the_given_features(predictor: Predictor) -> None:
    question = {"user_id": 3, "features": {"total_purchases": 0}}
    (_, what_if), (_, as_is), (_, several) = answers_to(
        predictor, question, {"user_id": 3}, {"instances": [{"user_id": 3}, question, {"user_id": 4}]}
    )
    assert what_if["overridden"] == ["total_purchases"]
    changed = {"total_purchases": 0, "purchase_frequency": 0.0}
    assert what_if["features"] == as_is["features"] | changed
    assert what_if["churn_probability"] != as_is["churn_probability"]
    assert "overridden" not in as_is
    first, listed, other = several["predictions"]
    assert first["churn_probability"] == as_is["churn_probability"]
    assert listed["churn_probability"] == what_if["churn_probability"]
    assert other["user_id"] == 4
    assert "overridden" not in other


def test_a_what_if_question_equals_a_customer_with_these_values(predictor: Predictor) -> None:
    (_, real) = answers_to(predictor, {"user_id": 3})[0]
    stored = {f.name: real["features"][f.name] for f in SPEC.features}
    (_, same), (_, unknown) = answers_to(
        predictor, {"user_id": 8, "features": stored}, {"user_id": UNKNOWN, "features": stored}
    )
    assert same["churn_probability"] == real["churn_probability"] == unknown["churn_probability"]
    assert unknown["status"] == "unknown"


def test_an_answer_has_the_age_of_the_features_on_request(predictor: Predictor) -> None:
    request = {"instances": [{"user_id": 3}, {"user_id": STALE[0]}], "parameters": {"features": True}}
    (_, with_age), (_, without) = answers_to(predictor, request, {"user_id": 3})
    assert [one["feature_age_s"] for one in with_age["predictions"]] == [86400, 60 * 86400]
    assert with_age["predictions"][0]["features"] == without["features"]
    assert "feature_age_s" not in without


def test_a_question_about_an_unknown_customer_needs_all_stored_features(predictor: Predictor) -> None:
    code, refused = answers_to(predictor, {"user_id": UNKNOWN, "features": {"total_purchases": 1}})[0]
    assert (code, refused["error"]) == (404, "unknown user_id")


def test_null_is_a_value(predictor: Predictor) -> None:
    _, answer = answers_to(predictor, {"user_id": 3, "features": {"tenure_months": None}})[0]
    assert answer["features"]["tenure_months"] is None
    assert answer["features"]["purchase_frequency"] is None


def test_the_status_of_features_decides_who_is_scored(predictor: Predictor) -> None:
    class Policies(ReplacedStore):
        def read(self, ids: Sequence[str], now: datetime) -> Vectors:
            vectors = super().read(ids, now)
            return replace(
                vectors,
                status=("ok", "degraded", "refused"),
                reasons=(None, "total_purchases is missing", "tenure_months is missing"),
                missing={"total_purchases": 1, "tenure_months": 1},
            )

    judged = with_features(predictor, Policies(predictor.features))
    (_, body) = answers_to(judged, {"instances": [{"user_id": 1}, {"user_id": 2}, {"user_id": 3}]})[0]
    fine, degraded, refused = body["predictions"]
    assert (fine["status"], "status_reason" in fine) == ("ok", False)
    assert (degraded["status"], degraded["status_reason"]) == ("degraded", "total_purchases is missing")
    assert (refused["error"], refused["churn_probability"]) == ("tenure_months is missing", None)
    counters, _ = judged.telemetry.snapshot()
    assert counters["churn_feature_missing_total", ("", "", "tenure_months")] == 1
    assert counters["churn_feature_vectors_total", ("", "", "refused")] == 1
    assert counters["churn_score_count", ("", "")] == 2


def test_a_customer_refused_without_the_store_may_try_again(predictor: Predictor) -> None:
    class Recalled(ReplacedStore):
        def read(self, ids: Sequence[str], now: datetime) -> Vectors:
            vectors = super().read(ids, now)
            reasons = ("last known values", "the feature store cannot be read now")
            return replace(
                vectors,
                status=("degraded", "refused"),
                reasons=reasons,
                retry_after_s=4.0,
                lost=frozenset([1]),
            )

    recalled = with_features(predictor, Recalled(predictor.features))
    known, lost = recalled.answer([{"body": b'{"user_id": 1}'}, {"body": b'{"user_id": 2}'}])
    assert (known.http_status, json.loads(known.body)["status"]) == (200, "degraded")
    assert (lost.http_status, lost.headers) == (503, {"Retry-After": "4"})
    assert json.loads(lost.body)["code"] == "feature_store_unavailable"


def test_a_spec_may_score_unknown_customers(predictor: Predictor) -> None:
    bundle = replace(predictor.bundle, spec={**predictor.bundle.spec, "on_unknown": "score"})
    code, answer = answers_to(replace(predictor, bundle=bundle), {"user_id": UNKNOWN})[0]
    assert (code, answer["status"]) == (200, "unknown")
    assert 0 < answer["churn_probability"] < 1


def test_reasons_explain_the_answer(predictor: Predictor) -> None:
    request = {"user_id": 3, "parameters": {"reasons": 2, "features": False}}
    answers = predictor.answer([{"body": json.dumps(request).encode()}] * 2, [Call(), Call(explain=True)])
    plain, explained = (json.loads(answer.body) for answer in answers)
    assert len(plain["reasons"]) == 2
    assert "explanation" not in plain
    assert "features" not in plain
    why = explained["explanation"]
    score = explained["churn_probability"]
    assert why["log_odds"] == pytest.approx(np.log(score / (1 - score)), abs=1e-9)
    total = why["base_log_odds"] + sum(why["attributions"].values())
    assert total == pytest.approx(why["log_odds"], abs=1e-6)
    assert list(why["attributions"]) == [f.name for f in SPEC.features]


def test_an_archive_without_a_reference_refuses_reasons(predictor: Predictor) -> None:
    bare = replace(predictor, explainer=replace(predictor.explainer, reference={}), telemetry=Telemetry())
    assert not bare.explainer.can_explain
    refused, fine = answers_to(bare, {"user_id": 3, "parameters": {"reasons": True}}, {"user_id": 3})
    assert (refused[0], refused[1]["code"]) == (503, "no_reference")
    assert bare.telemetry.snapshot()[0]["churn_errors_total", ("", "", telemetry.NO_REFERENCE)] == 1
    assert "has no reference for total_purchases; package the model again" in refused[1]["error"]
    assert fine[0] == 200


def test_a_bug_refuses_one_request_and_is_counted(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = predictor_module.protocols.parse

    def broken(row: Any, rules: Any, call: Any) -> Any:
        if row["body"] == b'[{"user_id": 13}]':
            raise RuntimeError("the id is 13")
        return original(row, rules, call)

    monkeypatch.setattr(predictor_module.protocols, "parse", broken)
    counted = replace(predictor, telemetry=Telemetry())
    bodies = [b'[{"user_id": %d}]' % i for i in (12, 13, 14)]
    with caplog.at_level(logging.DEBUG):
        answers = counted.answer([{"body": body} for body in bodies])
    assert [answer.http_status for answer in answers] == [200, 503, 200]
    assert answers[1].headers == {"Retry-After": "1"}
    assert json.loads(answers[1].body)["code"] == "internal"
    assert counted.telemetry.snapshot()[0]["churn_errors_total", ("", "", telemetry.INTERNAL)] == 1
    assert "RuntimeError in test_predictor.py" in caplog.text
    assert "13" not in caplog.text.replace(":13", "")


def test_an_error_of_bookkeeping_does_not_change_answers(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    counted = replace(predictor, telemetry=Telemetry())
    monkeypatch.setattr(counted.telemetry, "observe", broken)
    monkeypatch.setattr(Bookkeeping, "_count_vectors", broken)
    code, _ = answers_to(counted, {"user_id": "x"})[0]
    assert code == 400


def test_probes_are_answered_and_only_counted_as_probes(predictor: Predictor) -> None:
    """Health checks and warm-up requests, in a batch of their own and in one with requests of customers."""
    log = RecordedLog()
    counted = replace(predictor, telemetry=Telemetry("v", "canary"), log=log)  # type: ignore[arg-type]
    common, probe = ("v", "canary"), {"instances": [{"user_id": PROBE_ID}]}
    before = counted.telemetry.snapshot()[0]
    expected = answers_to(predictor, probe)[0]
    assert answers_to(counted, probe, probe) == [expected, expected]
    after = counted.telemetry.snapshot()[0]
    assert {name for (name, _), value in (after.items() - before.items()) if value} == {"churn_probes_total"}
    customer = {"instances": [{"user_id": FRESH[0]}]}
    assert answers_to(counted, probe, customer, probe) == [
        expected,
        answers_to(predictor, customer)[0],
        expected,
    ]
    counts = counted.telemetry.snapshot()[0]
    assert counts["churn_requests_total", (*common, "v1", "200")] == 1
    assert counts["churn_feature_vectors_total", (*common, "ok")] == 1
    assert ("churn_feature_vectors_total", (*common, "unknown")) not in counts
    assert counts["churn_request_seconds_count", common] == 1
    assert counts["churn_probes_total", (*common, "direct")] == 4
    assert [len(records.user_ids) for records in log.records] == [1]
    # Only a probe that the gateway has counted may be subtracted from its counts.
    body = json.dumps(probe).encode()
    counted.answer([{"body": body}, {"body": body}], [Call(probe=THROUGH_GATEWAY), Call(probe="else")])
    counts = counted.telemetry.snapshot()[0]
    assert counts["churn_probes_total", (*common, "gateway")] == 1
    assert counts["churn_probes_total", (*common, "direct")] == 5


def test_metrics_count_requests_features_and_scores(predictor: Predictor) -> None:
    counted = replace(predictor, telemetry=Telemetry("v", "canary"))
    answers_to(counted, {"user_id": 1}, b"?", {"instances": [{"user_id": STALE[0]}, {"user_id": UNKNOWN}]})
    counters, _ = counted.telemetry.snapshot()
    common = ("v", "canary")
    assert counters["churn_requests_total", (*common, "native", "200")] == 1
    assert counters["churn_requests_total", (*common, "none", "400")] == 1
    assert counters["churn_requests_total", (*common, "v1", "200")] == 1
    assert counters["churn_errors_total", (*common, "bad_request")] == 1
    assert counters["churn_request_seconds_count", common] == 3
    assert counters["churn_batch_requests_count", common] == 1
    assert counters["churn_batch_customers_sum", common] == 3
    assert counters["churn_score_count", common] == 2
    assert [counters["churn_feature_vectors_total", (*common, s)] for s in ("ok", "stale", "unknown")] == [
        1
    ] * 3
    ages = {le: counters["churn_feature_age_seconds_bucket", (*common, le)] for le in ("86400", "3888000")}
    assert ages == {"86400": 1, "3888000": 1}
    assert counters["churn_feature_age_seconds_count", common] == 2
    decisions = [counters["churn_predictions_total", (*common, d)] for d in ("High Risk", "Low Risk")]
    assert sum(decisions) == 2


ALONE = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in str(f).lower()]
sys.path[:] = [p for p in sys.path if p != {repository!r}]
sys.path.insert(0, {model_dir!r})
import churn_handler, handlers
assert "ts" not in sys.modules

class Context:
    system_properties = {{"model_dir": {model_dir!r}}}
    model_name = "churn"
    statuses, headers = [], []
    def get_all_request_header(self, idx): return {{"X-Request-ID": "mine", "explain": "False"}}
    def get_request_id(self, idx): return "server's"
    def set_response_header(self, idx, name, value): self.headers.append((idx, name, value))
    def set_response_status(self, code, phrase, idx): self.statuses.append((idx, code, phrase))
    def set_response_content_type(self, idx, value): assert value == "application/json"

handler = churn_handler.ChurnHandler()
handler.initialize(Context())
bodies = handler.handle([{{"body": b'{{"user_id": 1}}'}}, {{"body": b"?"}}], Context())
assert Context.statuses == [(0, 200, "OK"), (1, 400, "Bad Request")], Context.statuses
assert b"churn_probability" in bodies[0], bodies
assert Context.headers == [(0, "x-churn-request-id", "mine"), (1, "x-churn-request-id", "mine")]
assert handlers.__file__.startswith({model_dir!r}), handlers.__file__
rooms = {{"churn", "pipelines", "serving", "training", "model", "features", "data",
         "core"}} & set(sys.modules)
assert not rooms, rooms
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

"""Thousands of hostile bodies in mixed batches do not change the answers to other requests."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.loading import load
from handlers.predictor import Predictor
from support import hostile_bodies
from support.hostile_bodies import Hostile
from support.served_bundle import FRESH, NOW, ServedBundle

BODIES, BATCH = 2400, 24
REFUSED = {400, 404, 413}


@pytest.fixture(scope="module")
def predictor(bundle: ServedBundle) -> Predictor:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bundle.store_environment.items():
            patch.setenv(name, value)
        loaded = load(bundle.model_dir, bundle.environment, "churn")
    return replace(loaded, clock=lambda: NOW)


@pytest.fixture(scope="module")
def alone(predictor: Predictor) -> dict[int, float]:
    """The score of each customer in a batch of its own."""
    answer = predictor.answer
    return {i: score_of(answer([{"body": hostile_bodies.good(i, 0).body}])[0].body) for i in FRESH}


def test_good_requests_beside_hostile_bodies_get_their_own_scores(
    predictor: Predictor, alone: dict[int, float]
) -> None:
    stream = hostile_bodies.requests(seed=4)
    for number in range(BODIES // BATCH):
        hostile = list(itertools.islice(stream, BATCH))
        friends = [hostile_bodies.good(FRESH[(number + i) % len(FRESH)], i) for i in range(4)]
        mixed = [*hostile[:3], friends[0], *hostile[3:9], *friends[1:3], *hostile[9:], friends[3]]
        check(predictor, mixed, alone)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.lists(hostile_bodies.bodies(), min_size=1, max_size=6), st.integers(0, 2))
def test_no_value_anywhere_breaks_a_batch(
    predictor: Predictor, alone: dict[int, float], bodies: list[bytes], protocol: int
) -> None:
    friend = hostile_bodies.good(7, protocol)
    check(predictor, [*(Hostile("strategy", body) for body in bodies), friend], alone)


FORMS: list[dict[str, Any]] = [
    # Rows that TorchServe makes of forms, queries and empty requests; the client chooses the names.
    {},
    {"user_id": "1"},
    {"user_id": b"1", "data": b""},
    {"data": None},
    {"body": None},
    {"data": {"user_id": 1}, "body": b"?"},
    {"body": [1, {"user_id": 1}]},
    {"body": 1.5},
    {"body": {"user_id": float("nan")}},
    {"body": bytearray(b"{bad")},
    {"body": {"inputs": [{"name": "user_id", "shape": [0], "datatype": "INT64", "data": []}]}},
    {"data": {"instances": {"user_id": 1}}},
]


@pytest.mark.parametrize("form", FORMS, ids=repr)
def test_a_row_of_any_form_is_answered(
    predictor: Predictor, alone: dict[int, float], form: dict[str, Any]
) -> None:
    friend = {"body": hostile_bodies.good(3, 0).body}
    odd, fine = predictor.answer([form, friend])
    assert odd.http_status in {200, *REFUSED}
    strict_json(odd.body)
    assert score_of(fine.body) == alone[3]


def check(predictor: Predictor, requests: Sequence[Hostile], alone: dict[int, float]) -> None:
    """Checks that all answers are strict JSON, and that good requests get their scores."""
    answers = predictor.answer([{"body": request.body} for request in requests])
    assert len(answers) == len(requests)
    for request, answer in zip(requests, answers, strict=True):
        content = strict_json(answer.body)
        if request.kind == "good":
            assert answer.http_status == 200, request.body
            assert score_of(answer.body) == alone[customer_of(request.body)]
        else:
            assert answer.http_status in {200, *REFUSED}, (answer.http_status, request.body[:200])
            assert answer.http_status == 200 or "error" in content, request.body[:200]


def customer_of(body: bytes) -> int:
    content = json.loads(body)
    if "inputs" in content:
        return int(content["inputs"][0]["data"][0])
    return int(content.get("instances", [content])[0]["user_id"])


def score_of(body: bytes) -> float:
    content = json.loads(body)
    if "outputs" in content:
        return float(content["outputs"][0]["data"][0])
    return float(content.get("predictions", [content])[0]["churn_probability"])


def strict_json(body: bytes) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(body.decode("utf-8"), parse_constant=refuse)

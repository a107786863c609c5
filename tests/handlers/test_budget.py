"""A batch scores no more rows than its budget; the cheapest requests are answers_to."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from handlers import telemetry
from handlers.loading import load
from handlers.predictor import Predictor
from handlers.protocol import budget
from handlers.protocol.budget import BUSY, cost, within
from handlers.protocol.messages import Call, Refusal, Request, Wants
from handlers.telemetry import Telemetry
from support.served_bundle import NOW, ServedBundle

EXPLAINED = Wants(reasons=3)


@pytest.fixture(scope="module")
def predictor(bundle: ServedBundle) -> Predictor:
    return replace(load(bundle.model_dir, bundle.environment, "churn"), clock=lambda: NOW)


def request(customers: int, wants: Wants = Wants()) -> Request:  # noqa: B008  frozen
    return Request("v1", tuple(range(customers)), (), wants)


def test_an_explained_customer_costs_its_rows() -> None:
    assert cost(request(7), 642) == 7
    assert cost(request(7, EXPLAINED), 642) == cost(request(7, Wants(explanation=True)), 642) == 7 * 642


def test_requests_within_the_budget_are_returned_unchanged() -> None:
    requests = [request(3), Refusal(400, "bad"), request(2, EXPLAINED)]
    assert within(requests, 2 * 10 + 3, 10) is requests


def test_the_cheapest_are_answered_and_a_single_request_always() -> None:
    lone, long, explained, bad = request(1), request(50), request(20, EXPLAINED), Refusal(400, "bad")
    assert within([explained, lone, long, bad, lone], 60, 10) == [BUSY, lone, long, bad, lone]
    assert within([explained, bad], 60, 10) == [explained, bad]


def answers_to(predictor: Predictor, bodies: list[Any]) -> list[Any]:
    return predictor.answer([{"body": json.dumps(body).encode()} for body in bodies], [Call()] * len(bodies))


def test_a_batch_of_explanations_scores_no_more_rows_than_the_budget(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = replace(predictor, telemetry=Telemetry(), batch_rows=1_000)
    scored = []
    score = counted.scorer.score

    def counting(columns: Any) -> Any:
        scores = score(columns)
        scored.append(len(scores))
        return scores

    monkeypatch.setattr(counted.scorer, "score", counting)
    counted = replace(counted, explainer=replace(counted.explainer, score=counting))
    explain = {"instances": [{"user_id": i} for i in range(1, 21)], "parameters": {"reasons": True}}
    answers = answers_to(counted, [*([explain] * 31), {"user_id": 1}])
    statuses = [answer.http_status for answer in answers]
    assert statuses[-1] == 200
    assert statuses.count(429) == 31 - statuses[:31].count(200) > 20
    assert statuses[:31].count(200) > 0
    assert sum(scored) <= 1_000
    refused = answers[statuses.index(429)]
    assert (refused.headers, json.loads(refused.body)["code"]) == ({"Retry-After": "1"}, "busy")
    counters = counted.telemetry.snapshot()[0]
    assert counters["churn_errors_total", ("", "", telemetry.BUSY)] == statuses.count(429)


def test_thirty_two_full_lists_beside_single_customers_do_not_open_the_breaker(predictor: Predictor) -> None:
    rng = np.random.default_rng(0)
    lists = [{"instances": [{"user_id": int(i)} for i in rng.integers(1, 10**9, 1000)]} for _ in range(32)]
    answers = answers_to(predictor, [*lists, *({"user_id": i} for i in range(1, 6))])
    assert {answer.http_status for answer in answers} == {200}
    assert predictor.features.stats()["breaker_opened"] == 0
    assert predictor.features.stats()["failures"] == 0
    assert budget.ROWS > 32_000

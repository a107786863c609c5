"""Envoy's split: the same customer always meets the same variant, and a bad canary loses no answer."""

import hashlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from math import inf, sqrt
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollout.observers.envoy_stats import between, totals
from rollout.observers.failures import FailureReader
from rollout.observers.observer import Opened
from serving.config import GatewayConfig
from serving.gateway.keys import Key
from serving.gateway.process import Gateway

from support.servers.upstreams import Split, split  # isort: skip
from support.waits import within  # isort: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Split]:
    with split(tmp_path_factory.mktemp("sticky")) as made:
        yield made


@pytest.fixture(autouse=True)
def _well(both: Split) -> Iterator[None]:
    yield
    both.gateway.set_canary_weight(0)
    both.canary.status, both.canary.delay_s = 200, 0.0


def test_who_is_on_the_canary_stays_there_as_its_weight_grows(both: Split) -> None:
    before: set[int] = set()
    for weight in (0, 1, 5, 25, 50, 100):
        both.gateway.set_canary_weight(weight)
        chosen = both.of_the_canary()
        assert chosen == both.of_the_canary(), "the same variant at the second request"
        assert before <= chosen
        # three standard deviations; 1 % is seen among more customers, for it is not 0 % and not 3 %
        users = range(1000) if weight == 1 else range(200)
        share, found = weight / 100, chosen | both.of_the_canary(users[200:])
        assert abs(len(found) - share * len(users)) <= 3 * sqrt(len(users) * share * (1 - share))
        assert both.gateway.split().weight == weight
        before = chosen
    assert len(before) == 200


def test_every_protocol_names_the_same_customer(both: Split) -> None:
    both.gateway.set_canary_weight(50)
    chosen = both.of_the_canary(range(60))

    def by(path: str, body: Any) -> set[int]:
        return {user for user in range(60) if both.who(user, path, body(user)) == "canary"}

    assert chosen == by("/v1/models/churn:predict", lambda u: {"instances": [{"user_id": u}, {"user_id": 7}]})
    infer = "/v2/models/churn/infer"
    tensor = {"name": "user_id", "shape": [2], "datatype": "INT64"}
    assert chosen == by(infer, lambda u: {"id": "1", "inputs": [{**tensor, "data": [u, 7]}]})
    assert chosen == by(infer, lambda u: {"inputs": [{**tensor, "data": [[u], [7]]}]})
    assert chosen == by("/predictions/churn", lambda u: [{"features": {"orders": 1}, "user_id": u}])
    # and a client may name the customer in a header, where the body does not
    other = {"user_id": 1}
    assert chosen == {u for u in range(60) if both.who(0, body=other, x_churn_user=str(u)) == "canary"}


@pytest.mark.parametrize("user", ['with "quotes"', "back\\slash\\", "ünïcode", "a" * 200, "line\nbreak"])
def test_any_text_is_a_customer(both: Split, user: str) -> None:
    both.gateway.set_canary_weight(50)
    assert len({both.who(user) for _ in range(10)}) == 1


def test_a_body_without_a_customer_is_split_by_chance(both: Split) -> None:
    both.gateway.set_canary_weight(50)
    assert {both.who(0, body={"other": 1}) for _ in range(60)} == {"stable", "canary"}


def test_a_variant_can_be_requested_by_name(both: Split) -> None:
    assert {both.who(user, x_churn_variant="canary") for user in range(20)} == {"canary"}
    both.gateway.set_canary_weight(100)
    assert {both.who(user, x_churn_variant="stable") for user in range(20)} == {"stable"}
    answer = both.client.post(
        "/predictions/churn", json={"user_id": 1}, headers={"x-churn-variant": "canarry"}
    )
    assert (answer.status_code, answer.json()) == (400, {"error": "x-churn-variant: stable or canary"})


def test_neither_header_reaches_a_worker_or_the_log(both: Split) -> None:
    both.who(1, x_churn_user="secret-customer", x_churn_variant="canary", x_request_id="looked-for")
    for header in ("x-churn-user", "x-churn-variant"):
        assert header not in both.canary.seen[-1]
    within(15, lambda: "looked-for" in both.log.read_text())
    assert "secret-customer" not in both.log.read_text()


def test_without_a_key_no_variant_can_be_requested(tmp_path: Path) -> None:
    key = Key("one", hashlib.sha256(b"good").hexdigest(), "")
    with split(tmp_path, GatewayConfig(), (key,), api_key="good") as made:
        url, canary = made.gateway.url, made.canary
        for headers in ({}, {"x-api-key": "guessed"}):
            refused = httpx.post(
                f"{url}/predictions/churn",
                json={"user_id": 1},
                headers={**headers, "x-churn-variant": "canary"},
                trust_env=False,
            )
            assert refused.status_code == 401
        assert canary.seen == []
        headers = {"x-api-key": "good", "x-churn-variant": "canary"}
        answer = httpx.post(f"{url}/predictions/churn", json={"user_id": 1}, headers=headers, trust_env=False)
        assert answer.json() == {"who": "canary"}
        assert canary.seen[0]["authorization"] == "Bearer token-of-canary", "its own, not the caller's key"


def test_a_shadow_gets_copies_and_its_answers_are_dropped(both: Split) -> None:
    both.gateway.set_canary_weight(0, mirror=True)
    both.canary.seen.clear()
    both.canary.status = 500
    assert {both.who(user, x_request_id=f"copied-{user}") for user in range(40)} == {"stable"}
    wanted = {f"copied-{user}" for user in range(40)}
    within(5, lambda: {one["x-request-id"] for one in both.canary.seen} == wanted)
    both.gateway.set_canary_weight(0)
    both.canary.seen.clear()
    both.of_the_canary(range(20))
    assert both.canary.seen == []


def test_a_slow_shadow_delays_no_answer(both: Split) -> None:
    both.gateway.set_canary_weight(0, mirror=True)
    both.canary.delay_s = 10
    began = time.monotonic()
    for user in range(30):
        both.who(user)
    assert time.monotonic() - began < 10, "one copy that is waited for takes as long"


@pytest.mark.parametrize("status", [500, 503])
def test_whom_the_canary_fails_stable_answers_and_it_counts(both: Split, status: int) -> None:
    both.gateway.set_canary_weight(50)
    both.canary.status = status
    before = totals(both.gateway)
    assert {both.who(user) for user in range(100)} == {"stable"}
    after = totals(both.gateway)
    canary, stable = (between(before, after, variant, 250) for variant in ("canary", "stable"))
    assert canary.requests == canary.errors > 20
    assert (stable.requests, stable.errors) == (100 - canary.requests, 0)


def test_a_failing_customer_counts_once_however_often_the_client_retries(both: Split) -> None:
    """Customers, by a checksum, and no identifier: in the file that Envoy writes while there is a canary."""
    reader, windows = FailureReader(), []
    both.gateway.set_canary_weight(50)
    both.canary.status = 200
    mine = sorted(both.of_the_canary(range(40)))
    windows.append(Opened(50, False, datetime.now(UTC)))
    both.canary.status = 503
    for _ in range(6):
        assert both.who(mine[0]) == both.who(mine[1]) == "stable"
    both.who(3, x_churn_user=str(mine[0]))  # the same customer, as her client names her
    within(5, lambda: _failing(reader, both, windows) == (0, 2))
    # in the next stage neither is a new one
    now = datetime.now(UTC)
    windows = [replace(windows[0], ended=now), Opened(100, False, now)]
    both.gateway.set_canary_weight(100)
    for user in (mine[0], mine[1], mine[2], 1_000_001):
        both.who(user)
    both.canary.status = 200
    within(5, lambda: _failing(reader, both, windows) == (0, 2, 0, 2))
    named = {line["who"] for line in _lines(both)} - {""}
    assert len(named) >= 4 and all(re.fullmatch("[0-9a-f]{16}", who) for who in named)
    shadow = [Opened(0, True, windows[0].begun)]
    assert reader.failing(shadow) == [None]


def _failing(reader: FailureReader, both: Split, windows: list[Opened]) -> tuple[int, ...]:
    reader.read(both.gateway.failures)
    found = reader.failing(windows)
    return tuple(count for one in found if one is not None for count in (one.stable, one.canary))


def _lines(both: Split) -> list[dict[str, str]]:
    return [json.loads(line) for line in both.gateway.failures.read_text().splitlines()]


def test_slow_requests_are_counted_by_the_objective(both: Split) -> None:
    both.gateway.set_canary_weight(100)
    before = settled(both.gateway)
    for user in range(40):
        both.canary.delay_s = 1.2 if user < 2 else 0.0
        both.who(user)
    # Envoy adds to its histograms twice a second
    within(10, lambda: between(before, totals(both.gateway), "canary", 800).latency_ms.get(inf) == 40)
    counted = between(before, totals(both.gateway), "canary", 800)
    assert (counted.requests, counted.slow) == (40, 2)
    assert counted.p99_ms is not None
    assert 1000 <= counted.p99_ms <= 2000
    assert counted.latency_ms[inf] == 40


def settled(gateway: Gateway) -> dict[str, float]:
    """Counters that no late answer to an earlier test changes any more."""
    found = totals(gateway)
    while True:
        time.sleep(0.6)
        if (later := totals(gateway)) == found:
            return found
        found = later


def test_a_dead_canary_s_customers_are_answered_by_stable(tmp_path: Path) -> None:
    with split(tmp_path) as made:
        made.gateway.set_canary_weight(100)
        assert {made.who(user) for user in range(20)} == {"canary"}
        made.canary.die()
        assert {made.who(user) for user in range(50)} == {"stable"}
        within(10, lambda: set(made.gateway.hosts("canary").values()) == {"FAILING"})
        refused = made.client.post(
            "/predictions/churn", json={"user_id": 1}, headers={"x-churn-variant": "canary"}
        )
        assert refused.status_code == 503, "a request for the canary by name gets no answer of stable"
        # a dead shadow does no harm either
        made.gateway.set_canary_weight(0, mirror=True)
        assert {made.who(user) for user in range(50)} == {"stable"}


def test_weights_and_mirroring_survive_the_death_of_envoy(tmp_path: Path) -> None:
    with split(tmp_path) as made:
        made.gateway.set_canary_weight(25)
        chosen = made.of_the_canary()
        made.gateway.stop()
        made.gateway.start()
        assert (made.gateway.split().weight, made.gateway.split().mirror) == (25, False)
        within(10, lambda: made.client.get("/v2/health/ready").status_code == 200)
        assert made.of_the_canary() == chosen

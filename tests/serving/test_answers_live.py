"""A real TorchServe: explanations, request ids, metrics and the prediction log."""

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from handlers.identity import mask
from handlers.records.segments import complete
from serving.config import ServingConfig
from serving.torchserve.server import TorchServe
from serving.torchserve.tokens import Tokens
from support.served_bundle import KEY, STALE, UNKNOWN, ServedBundle, files_of


@dataclass
class Running:
    server: TorchServe
    log: Path

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        sent = {**Tokens.headers(self.server.tokens.inference), **headers}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = self.server.inference + path
        return httpx.post(url, content=content, headers=sent, timeout=30, trust_env=False)

    @property
    def worker(self) -> psutil.Process:
        [worker] = psutil.Process(self.server.pid).children(recursive=True)
        return worker

    def samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        text = httpx.get(self.server.metrics + "/metrics", trust_env=False).text
        found = {}
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                # this parser, not Prometheus, adds _total to a counter of another name
                name = one.name if f"{one.name}{{" in text else one.name.removesuffix("_total")
                found[name, frozenset((k, v) for k, v in one.labels.items() if k != "Hostname")] = one.value
        return found


def sample(samples: dict[Any, float], name: str, **labels: str) -> float:
    common = {"model_version": "0123456789ab", "variant": "stable"}
    return samples[name, frozenset((common | labels).items())]


@pytest.fixture(scope="module")
def served(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("served")
    log = folder / "predictions"
    environment = {
        **bundle.environment,
        "CHURN_PREDICTION_LOG": str(log),
        "CHURN_PREDICTION_LOG_WINDOW_S": "3600",
    }
    with (
        pytest.MonkeyPatch.context() as patch,
        TorchServe(ServingConfig(), bundle.archive, environment, files_of(folder)) as server,
    ):
        patch.delenv("http_proxy", raising=False)
        yield Running(server, log)


def test_explanations_have_paths_of_their_own(served: Running) -> None:
    native = served.post("/explanations/churn", {"user_id": 3}).json()
    assert native["reasons"][0].startswith(
        ("purchases so far", "tenure_months", "avg_purchase", "customer_s")
    )
    why = native["explanation"]
    total = why["base_log_odds"] + sum(why["attributions"].values())
    assert total == pytest.approx(why["log_odds"], abs=1e-6)
    v1 = served.post("/v1/models/churn:explain", {"instances": [{"user_id": 3}, {"user_id": UNKNOWN}]}).json()
    assert v1["explanations"][0] == {"user_id": 3, **why, "reasons": native["reasons"]}
    assert v1["explanations"][1] == {"user_id": UNKNOWN, "error": "unknown user_id"}
    plain = served.post("/v1/models/churn:predict", {"instances": [{"user_id": 3}]}).json()
    assert set(plain) == {"predictions"}
    assert "reasons" not in plain["predictions"][0]


def test_a_request_may_override_features(served: Running) -> None:
    answer = served.post("/predictions/churn", {"user_id": 3, "features": {"total_purchases": 0}}).json()
    assert answer["overridden"] == ["total_purchases"]
    assert answer["features"]["purchase_frequency"] == 0


def test_a_request_keeps_its_id(served: Running) -> None:
    for header in ("x-request-id", "X-Request-ID"):
        answer = served.post("/predictions/churn", {"user_id": 1}, **{header: "order-77"})
        assert answer.headers["x-churn-request-id"] == "order-77"
    own = served.post("/predictions/churn", {"user_id": 1})
    assert own.headers["x-churn-request-id"] == own.headers["x-request-id"]
    odd = served.post("/predictions/churn", {"user_id": 1}, **{"x-request-id": "two words"})
    assert odd.headers["x-churn-request-id"] == odd.headers["x-request-id"]


def test_answers_are_counted_in_the_metrics_of_torchserve(served: Running) -> None:
    bodies = [
        {"user_id": 5},
        {"instances": [{"user_id": STALE[0]}, {"user_id": UNKNOWN}]},
        b"{bad",
    ]
    time.sleep(2.5)  # the metrics of earlier requests are sent by then
    before = served.samples()
    for body in bodies:
        served.post("/predictions/churn", body)
    deadline = time.monotonic() + 10
    done = sample(before, "churn_request_seconds_count") + 3
    while sample(after := served.samples(), "churn_request_seconds_count") < done:
        assert time.monotonic() < deadline, "the counts did not arrive"
        time.sleep(0.1)

    def more(name: str, **labels: str) -> float:
        first = before.get(
            (name, frozenset({"model_version": "0123456789ab", "variant": "stable", **labels}.items()))
        )
        return sample(after, name, **labels) - (first or 0.0)

    assert more("churn_requests_total", protocol="native", code="200") == 1
    assert more("churn_requests_total", protocol="v1", code="200") == 1
    assert more("churn_requests_total", protocol="none", code="400") == 1
    assert more("churn_errors_total", kind="bad_request") == 1
    assert more("churn_feature_vectors_total", status="stale") == 1
    assert more("churn_feature_vectors_total", status="unknown") == 1
    for histogram, count in (
        ("churn_score", 2),
        ("churn_feature_age_seconds", 2),
        ("churn_batch_requests", 3),
    ):
        assert more(f"{histogram}_count") == more(f"{histogram}_bucket", le="+Inf") == count
    assert (
        more("churn_feature_age_seconds_bucket", le="86400")
        <= more("churn_feature_age_seconds_bucket", le="172800")
        == 1
    )
    assert more("churn_score_bucket", le="0.05") <= more("churn_score_bucket", le="0.95") <= 2
    assert more("churn_log_records_total", outcome="handed") == 2
    assert more("churn_log_records_total", outcome="dropped") == 0


def test_the_log_is_complete_after_kill_9_and_after_a_clean_stop(served: Running) -> None:
    """This must be the last test of the module, because it stops the server."""
    ids = [f"before-{number}" for number in range(5)]
    for request_id in ids:
        served.post("/predictions/churn", {"user_id": 9}, **{"x-request-id": request_id})
    time.sleep(1.0)
    worker = served.worker
    worker.send_signal(signal.SIGKILL)
    worker.wait(10)
    deadline = time.monotonic() + 60
    while served.post("/predictions/churn", {"user_id": 9}).status_code != 200:
        assert time.monotonic() < deadline, "no new worker"
        time.sleep(0.5)
    later = [f"after-{number}" for number in range(5)]
    for request_id in later:
        served.post("/predictions/churn", {"user_id": 9}, **{"x-request-id": request_id})
    served.server.stop()
    assert complete(served.log) == 0, "a clean stop left something to do"
    written = pd.read_parquet(served.log)
    found = written["request_id"].value_counts()
    assert [found.get(request_id, 0) for request_id in ids + later] == [1] * 10
    row = written[written["request_id"] == "after-0"].iloc[0]
    assert (row["user_id"], row["status"], row["variant"]) == (mask("9", KEY), "ok", "stable")

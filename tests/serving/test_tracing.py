"""Spans of a real worker behind the real gateway at an OTLP receiver; the trace in the prediction log."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from serving.config import ServingConfig, Tracing
from support.served_bundle import ServedBundle
from support.servers.otlp_receiver import Receiver, receiving
from support.servers.stack import Stack, supervisor_of
from support.waits import within

PARENT = "00f067aa0ba902b7"
STAGES = ["queue", "read", "score", "write"]


def traceparent(number: int, sampled: bool = True) -> str:
    return f"00-{number:032x}-{PARENT}-{sampled:02x}"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predictions")


@pytest.fixture(scope="module")
def stack(
    bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory, receiver: Receiver, log: Path
) -> Iterator[Stack]:
    serving = ServingConfig(tracing=Tracing(endpoint=receiver.endpoint, sample_ratio=0))

    environment = {
        "CHURN_PREDICTION_LOG": str(log),
        "CHURN_PREDICTION_LOG_WINDOW_S": "0.2",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    folder = tmp_path_factory.mktemp("traced")
    made = supervisor_of(bundle, folder, serving=serving, environment=environment)
    with made.supervisor:
        yield made


def predict(stack: Stack, traceparent: str = "", user_id: int = 1) -> int:
    headers = {"traceparent": traceparent} if traceparent else {}
    return stack.post("/predictions/churn", json={"user_id": user_id}, headers=headers).status_code


def test_the_stages_of_a_traced_request_are_children_of_the_callers_span(
    stack: Stack, receiver: Receiver
) -> None:
    assert predict(stack, traceparent(1)) == 200
    within(10, lambda: len(receiver.trace(f"{1:032x}")) == 5)
    spans = receiver.trace(f"{1:032x}")
    whole = spans.pop("predict")
    assert whole.parent_span_id.hex() == PARENT
    assert whole.kind == whole.SPAN_KIND_SERVER
    in_order = sorted(spans.values(), key=lambda span: span.start_time_unix_nano)
    assert [span.name for span in in_order] == STAGES
    assert {span.parent_span_id for span in in_order} == {whole.span_id}
    assert in_order[0].start_time_unix_nano == whole.start_time_unix_nano
    assert in_order[-1].end_time_unix_nano == whole.end_time_unix_nano
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in in_order)
    assert receiver.paths == {"/v1/traces"}
    assert receiver.resource["service.name"] == "churn"
    assert receiver.resource["service.version"] == "0123456789ab"
    assert receiver.resource["churn.variant"] == "stable"


def test_the_caller_decides_about_sampling_and_else_the_ratio(stack: Stack, receiver: Receiver) -> None:
    before = len(receiver.spans)
    assert predict(stack, traceparent(2, sampled=False)) == 200
    assert predict(stack) == 200  # sample_ratio is 0
    assert predict(stack, traceparent(3)) == 200
    within(10, lambda: len(receiver.trace(f"{3:032x}")) == 5)
    assert len(receiver.spans) == before + 5


def test_a_client_cannot_set_the_time_of_receipt(stack: Stack, receiver: Receiver) -> None:
    headers = {"traceparent": traceparent(4), "x-churn-received": "1000000000.0"}
    assert stack.post("/predictions/churn", json={"user_id": 1}, headers=headers).status_code == 200
    within(10, lambda: len(receiver.trace(f"{4:032x}")) == 5)
    whole = receiver.trace(f"{4:032x}")["predict"]
    assert whole.end_time_unix_nano - whole.start_time_unix_nano < 60 * 10**9


def test_the_prediction_log_names_the_trace(stack: Stack, log: Path) -> None:
    assert predict(stack, traceparent(5), user_id=5) == 200
    assert predict(stack, traceparent(6, sampled=False), user_id=6) == 200
    assert predict(stack, user_id=7) == 200

    def logged() -> pd.DataFrame:
        files = sorted(log.glob("*/*.parquet"))
        return pd.concat([pd.read_parquet(f) for f in files]) if files else pd.DataFrame({"trace_id": []})

    within(10, lambda: {f"{n:032x}" for n in (5, 6)} <= set(logged()["trace_id"]))
    within(10, lambda: logged()["trace_id"].isna().any())

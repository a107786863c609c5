"""Which requests are traced; a worker without tracing does not import OpenTelemetry."""

import os
import subprocess
import sys

import pytest

from handlers.bundle import BundleError
from handlers.protocol.call_headers import call_of
from handlers.tracing import is_sampled, open_tracing
from support.served_bundle import ServedBundle

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"


@pytest.mark.parametrize(
    ("traceparent", "ratio", "draw", "sampled"),
    [
        (TRACE + "01", 0.0, 0.5, True),
        (TRACE + "03", 0.0, 0.5, True),
        (TRACE + "00", 1.0, 0.5, False),
        (TRACE + "02", 1.0, 0.5, False),
        ("", 0.0, 0.0, False),
        ("", 0.3, 0.2, True),
        ("", 0.3, 0.4, False),
        ("", 1.0, 0.999, True),
    ],
)
def test_the_client_decides_and_otherwise_chance(
    traceparent: str, ratio: float, draw: float, sampled: bool
) -> None:
    assert is_sampled(traceparent, ratio, draw) is sampled


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"CHURN_OTEL_ENDPOINT": "127.0.0.1:4318"}, "CHURN_OTEL_ENDPOINT: expected http"),
        ({"CHURN_OTEL_ENDPOINT": "http://h:1", "CHURN_OTEL_RATIO": "2"}, "CHURN_OTEL_RATIO: expected"),
        ({"CHURN_OTEL_ENDPOINT": "http://h:1", "CHURN_OTEL_RATIO": "much"}, "CHURN_OTEL_RATIO: expected"),
    ],
)
def test_the_error_names_the_variable(environment: dict[str, str], complaint: str) -> None:
    with pytest.raises(BundleError, match=complaint):
        open_tracing(environment, "churn", "1", "stable")


def test_the_error_names_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(BundleError, match=r"CHURN_OTEL_ENDPOINT: not installed: pip install .*\[otel\]"):
        open_tracing({"CHURN_OTEL_ENDPOINT": "http://127.0.0.1:1"}, "churn", "1", "stable")


def test_without_a_receiver_nothing_is_traced_and_imported(bundle: ServedBundle) -> None:
    assert open_tracing({}, "churn", "1", "stable") is None
    script = (
        "import os, sys; from pathlib import Path; from handlers.loading import load;"
        f"predictor = load(Path({str(bundle.model_dir)!r}), os.environ, 'churn');"
        "predictor.answer([{'body': b'{\"user_id\": 1}'}]);"
        "ours = ('opentelemetry.sdk.trace', 'opentelemetry.exporter');"
        "sys.exit(any(name.startswith(ours) for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **bundle.environment}, check=False
    )
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("sent", "received"),
    [("1764000000.123456", 1764000000.123456), ("soon", 0.0), ("-1.0", 0.0), ("1e9", 0.0)],
)
def test_the_time_of_receipt_has_to_be_a_unix_time(sent: str, received: float) -> None:
    assert call_of([(b"x-churn-received", sent.encode()), (b"explain", b"False")], "").received == received

"""Metrics of a worker: sums, buckets, and lines that TorchServe reads."""

import re
from pathlib import Path

import pytest
import yaml

from handlers.telemetry import (
    COUNTERS,
    ERRORS,
    GAUGES,
    HISTOGRAMS,
    LATENCY,
    SCORE,
    Telemetry,
    torchserve_metrics,
    worker_name,
)
from support.served_bundle import REPOSITORY

# The pattern with which org.pytorch.serve.metrics.Metric reads a line of a worker.
READ_BY_TORCHSERVE = re.compile(
    r"\s*([\w\s]+)\.([\w\s]+):([0-9\-,.e]+)\|#([^|]*)(\|#type:([^|]*))?\|#hostname:([^,]+),([^,]+)(,(.*))?"
)


def read(lines: list[str]) -> dict[tuple[str, str], float]:
    found = {}
    for line in lines:
        match = READ_BY_TORCHSERVE.fullmatch(line.removeprefix("[METRICS]"))
        assert match, line
        found[match[1], match[4]] = float(match[3])
    return found


def test_a_histogram_is_sent_as_counters_of_prometheus() -> None:
    telemetry = Telemetry("v1", "stable")
    telemetry.observe(SCORE, 0.05)  # a bucket includes its upper bound
    telemetry.observe(SCORE, 0.06, times=2)
    telemetry.observe_all(SCORE, [0.99, 1.0])
    sent = read(telemetry.lines(0.0))
    labels = "model_version:v1,variant:stable"
    counts = [sent["churn_score_bucket", f"{labels},le:{le}"] for le in ("0.05", "0.1", "0.95", "+Inf")]
    assert counts == [1, 3, 3, 5]
    assert sent["churn_score_count", labels] == 5
    assert sent["churn_score_sum", labels] == pytest.approx(0.05 + 0.12 + 1.99)
    assert sent["churn_request_seconds_bucket", f"{labels},le:+Inf"] == 0


def test_only_changes_are_sent_as_increments() -> None:
    telemetry = Telemetry("v", "s", worker="9000")
    counts = {"handed": 5, "written": 3, "dropped": 0, "waiting": 2}
    telemetry.watch_log(lambda: counts, lambda: 4)
    telemetry.watch_store(lambda: {"breaker_state": 0.0})
    telemetry.add(ERRORS, "internal", times=2)
    first = read(telemetry.lines(0.0))
    assert first["churn_errors_total", "model_version:v,variant:s,kind:internal"] == 2
    assert first["churn_log_records_total", "model_version:v,variant:s,outcome:dropped"] == 0
    assert first["churn_errors_total", "model_version:v,variant:s,kind:prediction_log"] == 4
    assert first["churn_log_waiting", "model_version:v,variant:s,worker:9000"] == 2
    assert first["churn_feature_store", "model_version:v,variant:s,stat:breaker_state,worker:9000"] == 0
    assert telemetry.lines(1.0) == []
    telemetry.add(ERRORS, "internal")
    telemetry.observe(LATENCY, 0.004, times=64)
    counts |= {"written": 5, "waiting": 0}
    second = read(telemetry.lines(2.0))
    assert second["churn_errors_total", "model_version:v,variant:s,kind:internal"] == 1
    assert second["churn_log_records_total", "model_version:v,variant:s,outcome:written"] == 2
    assert second["churn_log_waiting", "model_version:v,variant:s,worker:9000"] == 0
    assert second["churn_request_seconds_count", "model_version:v,variant:s"] == 64
    assert second["churn_request_seconds_sum", "model_version:v,variant:s"] == pytest.approx(0.256)
    assert ("churn_request_seconds_bucket", "model_version:v,variant:s,le:0.003") not in second


def test_a_label_cannot_break_a_line() -> None:
    telemetry = Telemetry("v:1,x|#\n", "s")
    telemetry.observe(LATENCY, 1e-7)
    lines = telemetry.lines(0.0)
    assert all("\n" not in line for line in lines)
    read(lines)


def test_torchserve_s_configuration_has_the_same_names_and_labels() -> None:
    config = yaml.safe_load((REPOSITORY / "configs" / "torchserve" / "metrics.yaml").read_text())
    assert config["model_metrics"] == torchserve_metrics()
    stated = [name for kind in config["ts_metrics"].values() for name in (one["name"] for one in kind)]
    assert "ts_inference_requests_total" in stated
    properties = (REPOSITORY / "configs" / "torchserve" / "config.properties").read_text()
    assert "metrics_config=${metrics_config}" in properties


def test_names_have_our_prefix_and_are_defined_once() -> None:
    names = [metric.name for metric in (*COUNTERS, *GAUGES, *HISTOGRAMS)]
    assert len(set(names)) == len(names)
    assert all(name.startswith("churn_") for name in names)
    assert all(metric.name.endswith("_total") for metric in COUNTERS)
    source = "".join(path.read_text() for path in Path(REPOSITORY, "handlers").rglob("*.py"))
    for name in names:
        assert source.count(f'"{name}"') == 1, f"{name} is written down twice"


def test_the_name_of_a_worker_is_in_its_socket() -> None:
    arguments = ["model_service_worker.py", "--sock-type", "unix", "--sock-name", "/run/.ts.sock.9001"]
    assert worker_name(arguments) == "9001"
    assert worker_name(["pytest"]) == "0"

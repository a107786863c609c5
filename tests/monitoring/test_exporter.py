"""The exporter: what Prometheus reads of monitoring and rollouts, with the database there and away."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.errors import ServingError
from monitoring.exporter import Exporter, export, exporting
from monitoring.findings import Cause, Checked, Finding, Measurement, Monitored, Severity
from monitoring.stored import MonitorStore
from monitoring.targets import targets
from retraining.config import RetrainConfig
from retraining.decision import Outcome
from retraining.ledger import Entry, Grade, Ledger
from rollout.database.fencing import Fence
from rollout.database.projections import Projection
from rollout.state import Change
from rollout.store import Store
from support.file_target import NEW, OLD, memory_folder, plan, store_in
from support.retraining_situations import CORRUPT as CORRUPTION
from support.retraining_situations import HARM, VERSION, day, evidence, window
from support.waits import within

NOW = datetime(2026, 3, 1, 2, tzinfo=UTC)
FORTNIGHT_S = 14 * 86_400.0
CORRUPT = Finding("unit_change", "amount", Cause.CORRUPTION, Severity.PAGE, "x100")
SYMPTOM = Finding(
    "distribution", "amount", Cause.DRIFT, Severity.DIGEST, "moved", explained_by="unit_change:amount"
)
LOSS = Measurement("log_loss_nats", 0.41, 300, "all", "v1", 0.35, 0.47)
UNKNOWN = Measurement("log_loss_nats", float("nan"), 3, "country=DE", "v1")

Page = dict[tuple[str, frozenset[tuple[str, str]]], float]


def run(
    at: datetime, *findings: Finding, measurements: tuple[Measurement, ...] = (LOSS, UNKNOWN)
) -> Monitored:
    return Monitored("churn", at, at - timedelta(days=14), "v1", Checked(measurements, findings), "d" * 64)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as made:
        yield made


@pytest.fixture
def store(folder: Path) -> Store:
    return store_in(folder, plan())


def exporter_in(folder: Path) -> Exporter:
    return Exporter(f"sqlite:///{folder}/rollout.db", "churn", FORTNIGHT_S)


def scraped(url: str) -> Page:
    families = text_string_to_metric_families(httpx.get(url, trust_env=False).text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def page_of(exporter: Exporter) -> Page:
    with exporting(exporter, "127.0.0.1:0") as url:
        return scraped(url)


def value(page: Page, name: str, **labels: str) -> float | None:
    return page.get((name, frozenset(labels.items())))


def names(page: Page) -> set[str]:
    return {name for name, _ in page}


def test_the_newest_run_is_exported_with_its_times_findings_and_measurements(
    folder: Path, store: Store
) -> None:
    runs = MonitorStore(f"sqlite:///{folder}/rollout.db")
    runs.save(run(NOW - timedelta(days=28), CORRUPT), NOW - timedelta(days=28))
    runs.save(run(NOW - timedelta(hours=2), CORRUPT, SYMPTOM), NOW)
    exporter = exporter_in(folder)
    exporter.refresh(NOW)
    page = page_of(exporter)
    model = {"model": "churn"}
    assert value(page, "churn_exporter_database_reachable") == 1
    assert value(page, "churn_exporter_last_success_timestamp_seconds") == NOW.timestamp()
    assert value(page, "churn_monitor_interval_seconds", **model) == FORTNIGHT_S
    assert value(page, "churn_monitor_last_success_timestamp_seconds", **model) == NOW.timestamp()
    assert value(page, "churn_monitor_window_end_timestamp_seconds", **model) == NOW.timestamp() - 7200
    about = {"check": "unit_change", "subject": "amount", "cause": "corruption", "severity": "page"}
    assert value(page, "churn_monitor_findings", **model, **about) == 1
    about = {"check": "distribution", "subject": "amount", "cause": "drift", "severity": "digest"}
    assert value(page, "churn_monitor_findings", **model, **about) == 1
    by_severity = {"page": 1, "ticket": 0, "digest": 1}
    assert {s: value(page, "churn_monitor_open", **model, severity=s) for s in by_severity} == by_severity
    of = {**model, "version": "v1"}
    for end, expected in (("", 0.41), ("_low", 0.35), ("_high", 0.47), ("_rows", 300)):
        assert value(page, f"churn_measured_log_loss_nats{end}", **of, subject="all") == expected
    # a number that could not be measured is no number; how few rows there were is one
    assert value(page, "churn_measured_log_loss_nats", **of, subject="country=DE") is None
    assert value(page, "churn_measured_log_loss_nats_rows", **of, subject="country=DE") == 3


def test_a_finding_that_is_gone_in_the_next_run_is_no_longer_exported(folder: Path, store: Store) -> None:
    runs, exporter = MonitorStore(f"sqlite:///{folder}/rollout.db"), exporter_in(folder)
    runs.save(run(NOW, CORRUPT), NOW)
    exporter.refresh(NOW)
    assert value(page_of(exporter), "churn_monitor_open", model="churn", severity="page") == 1
    runs.save(run(NOW + timedelta(days=14)), NOW)
    exporter.refresh(NOW)
    page = page_of(exporter)
    assert value(page, "churn_monitor_open", model="churn", severity="page") == 0
    assert "churn_monitor_findings" not in names(page)


def test_without_any_run_there_is_no_time_of_a_last_success(folder: Path, store: Store) -> None:
    exporter = exporter_in(folder)
    exporter.refresh(NOW)
    page = page_of(exporter)
    assert value(page, "churn_exporter_database_reachable") == 1
    assert value(page, "churn_monitor_interval_seconds", model="churn") == FORTNIGHT_S
    assert not any(name.startswith(("churn_monitor_last", "churn_measured")) for name in names(page))


def test_rollouts_are_exported_as_the_controller_of_a_cluster_does(folder: Path, store: Store) -> None:
    started = store.start("churn", Change(NEW, OLD, "ada", NOW, "march"), plan())
    store.save_projection("churn", Projection("registry", False, "differs", NOW))
    exporter = exporter_in(folder)
    exporter.refresh(NOW)
    page = page_of(exporter)
    assert value(page, "churn_rollout_phase", phase=started.phase) == 1
    assert (
        value(page, "churn_rollouts", phase="starting") == 1
        and value(page, "churn_rollouts", phase="aborted") == 0
    )
    assert value(page, "churn_rollout_running") == 1
    assert value(page, "churn_rollout_controlled") == 0
    assert value(page, "churn_rollout_agrees", projection="registry") == 0
    store.take_lease("churn", "host:1:abc", NOW)
    exporter.refresh(NOW)
    assert value(page_of(exporter), "churn_rollout_controlled") == 1
    exporter.refresh(NOW + timedelta(hours=1))
    assert value(page_of(exporter), "churn_rollout_controlled") == 0, "the lease has expired"


def test_the_ledger_of_retraining_is_exported(folder: Path, store: Store) -> None:
    ledger, exporter, policy = Ledger(f"sqlite:///{folder}/rollout.db"), exporter_in(folder), RetrainConfig()
    model = {"model": "churn"}

    def wake(at: float, *findings: Finding) -> Entry:
        found = evidence(window(at, *findings))
        return ledger.decide(policy, ledger.state("churn", VERSION, day(0)), found, day(at), "cron")

    def page() -> Page:
        exporter.refresh(NOW)
        return page_of(exporter)

    assert value(page(), "churn_retraining_vetoed", **model) == 0
    assert value(page(), "churn_retraining_last_decision_timestamp_seconds", **model) is None
    wake(40)
    veto = wake(41, HARM, CORRUPTION)
    answer = {"action": "vetoed", "trigger": "performance", "obstacle": "veto"}
    assert value(page(), "churn_retraining_decisions_total", **model, **answer) == 1
    assert value(page(), "churn_retraining_vetoed", **model) == 1
    for number, (at, outcome) in enumerate(
        ((50, Outcome.FAILED), (60, Outcome.FAILED), (70, Outcome.REFUSED))
    ):
        granted = wake(at, HARM)
        now = page()
        assert value(now, "churn_retraining_vetoed", **model) == 0
        since = value(now, "churn_retraining_running_since_timestamp_seconds", **model)
        assert since == value(now, "churn_retraining_last_decision_timestamp_seconds", **model)
        assert since == day(at).timestamp()
        assert value(now, "churn_retraining_failures_in_a_row", **model) == number
        run = ledger.active("churn")
        assert run is not None
        ledger.end(
            Fence("churn", run.id, ledger.take_token("churn", "t", day(at), 10)), outcome, "", day(at + 1)
        )
        grade = "right" if number < 1 else "wrong"
        ledger.save_grade(Grade(granted.number, day(at + 1), grade, "by its labels", {}))
    ledger.save_grade(Grade(veto.number, day(71), "right", "the rows were wrong", {}))
    last = page()
    assert value(last, "churn_retraining_failures_in_a_row", **model) == 0, (
        "a refused candidate is no failure"
    )
    assert value(last, "churn_retraining_running_since_timestamp_seconds", **model) is None
    assert value(last, "churn_retraining_last_success_timestamp_seconds", **model) == day(71).timestamp()
    runs = {"running": 0, "rolled_out": 0, "refused": 1, "failed": 2}
    assert {one: value(last, "churn_retraining_runs", **model, outcome=one) for one in runs} == runs
    graded = {"action": "yes", "trigger": "performance", "grade": "wrong"}
    assert value(last, "churn_retraining_grades_total", **model, **graded) == 2
    assert value(last, "churn_monitor_pages_graded", **model) == 3, "a veto is no page about harm"
    assert value(last, "churn_monitor_pages_right", **model) == 1


def test_the_last_values_stay_with_their_time_while_the_database_is_away(
    folder: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    MonitorStore(f"sqlite:///{folder}/rollout.db").save(run(NOW, CORRUPT), NOW)
    exporter, later = exporter_in(folder), NOW + timedelta(minutes=5)
    exporter.refresh(NOW)
    (folder / "rollout.db").rename(folder / "away.db")
    (folder / "rollout.db").mkdir()
    for _ in range(3):
        exporter.refresh(later)
    page = page_of(exporter)
    assert value(page, "churn_exporter_database_reachable") == 0
    assert value(page, "churn_exporter_last_success_timestamp_seconds") == NOW.timestamp()
    assert value(page, "churn_monitor_open", model="churn", severity="page") == 1, (
        "no page resolves by an outage"
    )
    ours = [record for record in caplog.records if record.name == "churn.monitor"]
    assert len(ours) == 1, "a failure is logged once"
    (folder / "rollout.db").rmdir()
    (folder / "away.db").rename(folder / "rollout.db")
    exporter.refresh(later)
    page = page_of(exporter)
    assert value(page, "churn_exporter_database_reachable") == 1
    assert value(page, "churn_exporter_last_success_timestamp_seconds") == later.timestamp()


def test_it_starts_while_the_database_is_away(folder: Path) -> None:
    (folder / "rollout.db").mkdir()
    exporter = exporter_in(folder)
    exporter.refresh(NOW)
    page = page_of(exporter)
    assert page == {("churn_exporter_database_reachable", frozenset()): 0}
    (folder / "rollout.db").rmdir()
    exporter.refresh(NOW)
    assert value(page_of(exporter), "churn_exporter_database_reachable") == 1


def test_it_reads_again_and_again_until_it_ends(folder: Path, store: Store) -> None:
    exporter, over = exporter_in(folder), threading.Event()
    moments = iter(NOW + timedelta(seconds=n) for n in range(10**6))
    thread = threading.Thread(target=export, args=(exporter, over, 0.01, lambda: next(moments)))
    thread.start()
    try:
        with exporting(exporter, "127.0.0.1:0") as url:
            name = "churn_exporter_last_success_timestamp_seconds"
            within(10, lambda: (value(scraped(url), name) or 0) >= NOW.timestamp() + 3)
    finally:
        over.set()
        thread.join()


def test_an_address_in_use_is_one_line_with_the_setting(folder: Path) -> None:
    exporter = exporter_in(folder)
    with exporting(exporter, "127.0.0.1:0") as url:
        port = httpx.URL(url).port
        refused = pytest.raises(ServingError, match=r"monitoring.exporter.address .*choose another port")
        with refused, exporting(exporter, f"127.0.0.1:{port}"):
            pass


def test_the_command_serves_metrics_and_ends_by_a_signal(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "churn", "monitor", "export", "--address", "127.0.0.1:0",
         "--set", f"workspace={tmp_path}"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        within(20, lambda: value(scraped(url), "churn_exporter_database_reachable") == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    shutil.rmtree(tmp_path)


def test_prometheus_finds_the_servers_of_this_machine(folder: Path, tmp_path: Path) -> None:
    records = {
        "server": {"gateway_metrics": "http://127.0.0.1:9901", "metrics": "http://127.0.0.1:8082"},
        "torchserve-1": {"metrics": "http://127.0.0.1:8082", "key_file": "/a/file"},
        "torchserve-canary": {"metrics": "http://127.0.0.1:8083"},
    }
    for name, record in records.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    (tmp_path / "written-just-now.json").write_text('{"metr')
    with exporting(exporter_in(folder), "127.0.0.1:0", lambda: targets(tmp_path)) as url:
        answer = httpx.get(url.replace("/metrics", "/targets"), trust_env=False)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == [
        {"targets": ["127.0.0.1:9901"], "labels": {"job": "churn-gateway"}},
        {"targets": ["127.0.0.1:8082"], "labels": {"job": "churn-workers"}},
        {"targets": ["127.0.0.1:8083"], "labels": {"job": "churn-workers"}},
    ]

"""`churn retrain` and `churn retrain ledger` on what the monitor has stored, without a training."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy

from churn.cli import main
from churn.settings import load_settings
from monitoring.findings import Checked, Finding, Monitored
from monitoring.stored import MonitorStore
from pipelines.retraining.evidence import labels_at, read_evidence
from retraining.ledger import Ledger
from support.retraining_situations import CORRUPT, HARM

NOW = datetime(2026, 3, 1, tzinfo=UTC)

Retrain = Callable[..., int]


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/rollout.db"


@pytest.fixture
def retrain(tmp_path: Path) -> Retrain:
    return lambda *words: main(["retrain", *words, "--set", f"workspace={tmp_path}"])


def monitored(database: str, *findings: Finding, at: datetime = NOW) -> None:
    run = Monitored("churn", at, at - timedelta(days=14), "", Checked((), findings), "0" * 64)
    MonitorStore(database).save(run, at)


def answers(database: str) -> list[str]:
    return [entry.decision.action.value for entry in Ledger(database).entries("churn")]


def test_a_dry_run_states_the_reason_and_writes_nothing(
    database: str, retrain: Retrain, capsys: pytest.CaptureFixture[str]
) -> None:
    monitored(database, CORRUPT, HARM)
    assert retrain("--dry-run", "--as-of", "2026-03-02", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["action"], record["trigger"], record["obstacle"]) == ("vetoed", "performance", "veto")
    assert "corruption at the check of 2026-03-01: unit_change found something" in record["reason"]
    assert answers(database) == []


def test_a_veto_is_recorded_once_and_a_person_does_not_pass_it(
    database: str, retrain: Retrain, capsys: pytest.CaptureFixture[str]
) -> None:
    monitored(database, CORRUPT, HARM)
    for woken_by in ("cron", "webhook", "cron"):
        assert retrain("--as-of", "2026-03-02", "--woken-by", woken_by) == 0
    assert answers(database) == ["vetoed"]
    assert retrain("--force", "--reason", "a new tariff", "--as-of", "2026-03-02") == 0
    entry = Ledger(database).entries("churn")[-1]
    assert answers(database) == ["vetoed", "vetoed"] and entry.evidence["request"]["reason"] == "a new tariff"
    capsys.readouterr()
    assert retrain("ledger", "--verify") == 0
    assert "2 of 2 decisions derived again from their evidence are equal" in capsys.readouterr().err


def test_a_row_that_was_changed_in_the_file_is_found(
    database: str, retrain: Retrain, capsys: pytest.CaptureFixture[str]
) -> None:
    monitored(database, HARM)
    assert retrain("--as-of", "2026-03-02") == 0
    engine = sqlalchemy.create_engine(database)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER retraining_decisions_no_UPDATE")
        connection.exec_driver_sql("UPDATE retraining_decisions SET action = 'yes', obstacle = ''")
    assert retrain("ledger", "--verify") == 1
    assert "decision 1: action, obstacle" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--force",), "--force: needs --reason TEXT"),
        (("--override-veto",), "--override-veto: only with --force"),
    ],
)
def test_a_person_has_to_say_why(
    retrain: Retrain, words: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert retrain(*words) == 2
    assert message in capsys.readouterr().err


def test_nothing_to_resume(retrain: Retrain, capsys: pytest.CaptureFixture[str]) -> None:
    assert retrain("resume") == 0
    assert "No run is open" in capsys.readouterr().out


def test_evidence_holds_what_was_known_at_its_time(tmp_path: Path, database: str) -> None:
    settings = load_settings(overrides=[f"workspace={tmp_path}"])
    for week in range(8):
        monitored(database, HARM, at=NOW + timedelta(days=14 * week))
    horizon = settings.features.horizon
    moments = [NOW - horizon, NOW - horizon + timedelta(days=10), NOW]
    settings.files.labels.parent.mkdir(parents=True)
    pd.DataFrame({"event_timestamp": moments, "user_id": ["a", "a", "a"], "churned": [0, 1, 0]}).to_parquet(
        settings.files.labels
    )
    _, evidence = read_evidence(settings, Ledger(database), NOW + timedelta(days=45))
    assert [window.at for window in evidence.windows] == [NOW + timedelta(days=14 * i) for i in range(4)]
    assert (evidence.labels.matured, evidence.labels.newest) == (2, NOW + timedelta(days=10))
    assert labels_at(settings, NOW, None).matured == 1, "the others end later"
    assert labels_at(settings, NOW + timedelta(days=45), NOW).new == 1

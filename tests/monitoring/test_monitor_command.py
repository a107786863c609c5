"""`churn monitor` on a real log: what it prints, stores and can derive again."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from churn.cli import main
from churn.settings import Settings, load_settings
from core.errors import MonitoringError
from features.build import build_features
from monitoring.evidence import read_evidence
from monitoring.findings import Checked
from monitoring.run import judge
from monitoring.stored import MonitorStore
from support.feature_records import cdnow, write_transactions

AT = datetime(1998, 7, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root: Path = tmp_path_factory.mktemp("workspace")
    log = cdnow()
    users = sorted(log["user_id"].unique())[:3_000]
    write_transactions(root, log[log["user_id"].isin(users)].assign(is_return=False), end=AT)
    settings = load_settings(overrides=[f"workspace={root}"])
    build_features(settings.features, settings.files)
    return settings


def monitor(settings: Settings, *arguments: str) -> int:
    return main([f"--set=workspace={settings.workspace}", "monitor", f"--as-of={AT:%Y-%m-%d}", *arguments])


def test_a_run_is_stored_with_evidence_from_which_it_is_derived_again(settings: Settings) -> None:
    assert monitor(settings) == 0
    run = MonitorStore(settings.rollout.database).newest("churn")
    assert run is not None and run.at == AT
    (folder,) = settings.files.monitoring.iterdir()
    again = judge(read_evidence(folder, run.evidence_sha256))

    def texts(checked: Checked) -> list[str]:
        return sorted(repr(one) for one in (*checked.measurements, *checked.findings))

    assert texts(again) == texts(run.checked)
    assert len(run.checked.measurements) > 100


def test_a_repeated_run_changes_nothing(settings: Settings) -> None:
    monitor(settings)
    (first,) = MonitorStore(settings.rollout.database).runs("churn")
    monitor(settings)
    (second,) = MonitorStore(settings.rollout.database).runs("churn")
    assert first.evidence_sha256 == second.evidence_sha256
    assert repr(first) == repr(second)


def test_changed_evidence_is_refused(settings: Settings, tmp_path: Path) -> None:
    monitor(settings)
    run = MonitorStore(settings.rollout.database).newest("churn")
    assert run is not None
    (folder,) = settings.files.monitoring.iterdir()
    table = pd.read_parquet(folder / "columns.parquet")
    before = (folder / "columns.parquet").read_bytes()
    table.assign(window_nulls=0).to_parquet(folder / "columns.parquet")
    with pytest.raises(MonitoringError, match=r"columns\.parquet: changed since the run"):
        read_evidence(folder, run.evidence_sha256)
    (folder / "columns.parquet").write_bytes(before)


def test_findings_fail_only_where_that_is_wanted(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    late = [f"--set=workspace={settings.workspace}", "monitor", "--as-of=1998-12-01", "--dry-run", "--json"]
    runs = len(MonitorStore(settings.rollout.database).runs("churn"))
    assert main(late) == 0
    record = json.loads(capsys.readouterr().out)
    stale = [one for one in record["findings"] if one["check"] == "stale"]
    assert [one["subject"] for one in stale if one["severity"] == "page"] == ["records"]
    # old snapshots follow from old records
    assert {one["subject"]: one["explained_by"] for one in stale} == {
        "records": "",
        "snapshots": "stale:records",
    }
    assert main([*late, "--fail-on=page"]) == 4
    assert len(MonitorStore(settings.rollout.database).runs("churn")) == runs


def test_evidently_leaves_out_an_empty_column(tmp_path: Path) -> None:
    from monitoring.evidently_report import write_drift_report

    spec = load_settings().features
    rows = pd.DataFrame({feature.name: range(300) for feature in spec.features}).astype(float)
    window = rows.assign(spend_30d=float("nan")).drop(columns="orders_14d")
    left_out = write_drift_report(spec, rows, window, tmp_path / "page" / "drift.html")
    assert left_out == ["orders_14d", "spend_30d"]
    assert "total_spend" in (tmp_path / "page" / "drift.html").read_text()

"""A real champion, fetched from a real registry, on the test rows of the new model."""

import base64
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from churn.settings import Settings
from core.workspace import Workspace
from support.feature_records import write_transactions
from support.fits import fit_settings, trained_model
from support.judging import STORE, evidence_of, in_registry, judged, refusals
from support.training_frames import cdnow_records
from training.gates import GateReport, Override, judge, write_report
from training.gates.champion_scores import score_champion
from training.gates.slices import breakdown
from training.registry.model_registry import Registry
from training.release.content import Run
from training.release.package import Archive, package
from training.release.register import register
from training.release.tracking import record_run

WHEN = datetime(2026, 11, 22, 12, tzinfo=UTC)


def register_champion(settings: Settings, files: Workspace, report: GateReport) -> Archive:
    model = trained_model(settings, files)
    run = Run(record_run(model, report, "c0ffee"), "c0ffee")
    archive = package(model, STORE, run)
    number = register(model, archive, run, report, "loop", WHEN)
    Registry(settings.training).promote(number, "ada", WHEN + timedelta(hours=1), "it is the first", {})
    return archive


@pytest.fixture(scope="module")
def crowned(
    small: Settings, rows: pd.DataFrame, trained: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, Workspace]:
    """The honest model as champion; its workspace."""
    folder = tmp_path_factory.mktemp("crowned")
    files = Workspace(folder / "ws")
    shutil.copytree(trained.root, files.root, symlinks=True)
    settings = in_registry(small, folder)
    evidence = evidence_of(settings, rows, files)
    report = judge(settings.gates, evidence)
    assert report.passed, report.refusals
    assert "no champion" in reason(report)
    assert evidence.sample is not None
    write_report(report, files, breakdown(evidence.sample))
    register_champion(settings, files, report)
    return settings, files


def reason(report: GateReport) -> str:
    return next(verdict.reason for verdict in report.verdicts if verdict.rule == "champion")


def test_the_champion_s_scores_are_those_it_was_trained_to_give(
    crowned: tuple[Settings, Workspace], rows: pd.DataFrame
) -> None:
    settings, files = crowned
    stored = pd.read_parquet(files.training / "test_scores.parquet")
    test = stored[["event_timestamp", "user_id"]].merge(rows, how="left")

    champion, scored = score_champion(test, settings.features, settings.training, files)

    assert (champion.state, champion.version) == ("scored", "1")
    assert scored is not None
    np.testing.assert_allclose(scored["score"], stored["score"], rtol=0, atol=1e-6)


def test_an_equal_model_is_not_inferior(crowned: tuple[Settings, Workspace], rows: pd.DataFrame) -> None:
    settings, files = crowned
    report = judged(settings, rows, files)

    assert report.passed
    assert "champion version 1: +0.0000 [+0.0000, +0.0000]" in reason(report)


def test_a_model_that_is_worse_than_the_champion_is_refused(
    crowned: tuple[Settings, Workspace], rows: pd.DataFrame, tmp_path: Path
) -> None:
    from training.train import train

    settings, champions = crowned
    files = Workspace(tmp_path)
    shutil.copytree(champions.root, files.root, symlinks=True, dirs_exist_ok=True)
    first_test = sorted(rows["event_timestamp"].unique())[-3]
    draw = np.random.default_rng(0)
    noisy = (rows["event_timestamp"] < first_test) & (draw.random(len(rows)) < 0.25)
    model = settings.model.model_copy(update={"seeds": (0,)})
    spoilt = rows.assign(churned=np.where(noisy, 1 - rows["churned"], rows["churned"]))
    train(spoilt, fit_settings(settings, model=model), files)

    report = judged(settings, rows, files)

    assert "champion" in refusals(report)
    assert "worse" in reason(report)


def test_missing_rows_refuse_the_comparison(crowned: tuple[Settings, Workspace], rows: pd.DataFrame) -> None:
    settings, files = crowned

    def short(test: pd.DataFrame):
        return score_champion(test.iloc[:-10], settings.features, settings.training, files)

    report = judged(settings, rows, files, champion=short)

    assert refusals(report) == {"champion"}
    assert "has no score for 10 of" in reason(report)


def test_a_champion_of_another_spec_is_scored_with_its_own_features(
    crowned: tuple[Settings, Workspace], rows: pd.DataFrame, tmp_path: Path
) -> None:
    """The candidate has no recency, and sums the spending of other days under the same name."""
    settings, champions = crowned
    files = Workspace(tmp_path)
    shutil.copytree(champions.root, files.root, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(files.data)
    write_transactions(files.root, cdnow_records(2000))
    stored = pd.read_parquet(files.training / "test_scores.parquet")
    test = stored[["event_timestamp", "user_id"]].merge(rows, how="left")
    remaining = [
        one for one in settings.features.features if one.name not in ("recency_days", "recency_to_gap")
    ]
    changed = [
        one.model_copy(update={"sql": "sum(amount) filter (age_days <= 45)"})
        if one.name == "spend_90d"
        else one
        for one in remaining
    ]
    spec = settings.features.model_copy(update={"features": tuple(changed), "service": "churn_prediction_v2"})
    candidates_rows = test.drop(columns=["recency_days", "recency_to_gap"]).assign(spend_90d=-1.0)

    champion, scored = score_champion(candidates_rows, spec, settings.training, files)

    assert (champion.state, champion.version) == ("scored", "1")
    assert scored is not None and len(scored) == len(stored)
    np.testing.assert_allclose(scored["score"], stored["score"], rtol=0, atol=1e-6)


def test_a_champion_of_another_spec_without_its_records_refuses_the_model(
    crowned: tuple[Settings, Workspace], rows: pd.DataFrame
) -> None:
    settings, files = crowned
    spec = settings.features.model_copy(update={"horizon_days": 60})
    strangers = rows.head(10).assign(user_id="u_" + "f" * 32)
    champion, scored = score_champion(strangers, spec, settings.training, files)

    assert (champion.state, scored) == ("unusable", None)


def test_a_champion_whose_archive_was_changed_is_unusable(
    crowned: tuple[Settings, Workspace], rows: pd.DataFrame, tmp_path: Path
) -> None:
    settings, files = crowned
    version = Registry(settings.training).champion()
    assert version is not None
    archive = next(Path(version.source).glob("*.mar"))
    content = archive.read_bytes()
    try:
        archive.write_bytes(content + b"\0")
        champion, _ = score_champion(rows, settings.features, settings.training, files)
        assert (
            champion.state == "unusable"
            and "does not hold the archive that was registered" in champion.problem
        )
        archive.unlink()
        champion, _ = score_champion(rows, settings.features, settings.training, files)
        assert champion.state == "unusable"
    finally:
        archive.write_bytes(content)


def test_a_champion_with_an_untrusted_signer_is_not_loaded(
    crowned: tuple[Settings, Workspace], rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, files = crowned
    signers = tmp_path / "signers"
    signers.write_text(f"another-signer {base64.b64encode(bytes(range(32))).decode()}\n")
    training = settings.training.model_copy(update={"trusted_signers": signers})
    loaded: list[object] = []
    monkeypatch.setattr("training.gates.champion_scores.load_program", loaded.append)

    champion, scored = score_champion(rows, settings.features, training, files)

    assert (champion.state, scored, loaded) == ("unusable", None, [])
    assert "sign" in champion.problem


@pytest.mark.parametrize("error", [AssertionError("schema 9"), AttributeError("no op"), ImportError("gone")])
def test_a_champion_that_cannot_be_loaded_for_any_reason_can_be_overridden(
    crowned: tuple[Settings, Workspace],
    rows: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    """Another release of torch may raise any error on an older program."""
    settings, files = crowned

    def load(path: object) -> None:
        raise error

    monkeypatch.setattr("training.gates.champion_scores.load_program", load)
    evidence = evidence_of(settings, rows, files)
    report = judge(settings.gates, evidence)
    decision = Override.by("ada", WHEN, "champion", "made by an older torch")
    decided = judge(settings.gates, evidence, (decision,))

    assert evidence.problems == ()
    assert refusals(report) == {"champion"}
    assert f"version 1: cannot be loaded: {type(error).__name__}" in reason(report)
    assert decided.passed and decided.state == "overridden"
    assert "made by an older torch" in decided.to_markdown()


def test_a_registry_that_does_not_answer_is_no_excuse(
    crowned: tuple[Settings, Workspace], rows: pd.DataFrame, tmp_path: Path
) -> None:
    settings, files = crowned
    (tmp_path / "mlflow.db").write_text("no database")
    training = settings.training.model_copy(update={"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"})

    champion, _ = score_champion(rows, settings.features, training, files)

    assert champion.state == "unusable" and "MLflow at sqlite" in champion.problem


def test_the_run_holds_what_it_takes_to_do_it_again(crowned: tuple[Settings, Workspace]) -> None:
    from mlflow import MlflowClient

    settings, _ = crowned
    version = Registry(settings.training).version("1")
    client = MlflowClient(settings.training.tracking_uri, settings.training.tracking_uri)
    run = client.get_run(version.run_id)
    folder = Path(run.info.artifact_uri)

    assert {file.path for file in client.list_artifacts(version.run_id)} == {
        "config.json", "data", "gates", "mar", "model_card.md", "requirements.txt", "training",
    }  # fmt: skip
    assert json.loads((folder / "config.json").read_text())["training"]["seed"] == 42
    assert "torch==2.13.0" in (folder / "requirements.txt").read_text()
    assert len(run.data.tags["environment.packages_sha256"]) == 64
    assert {f"period/1998-0{m}-01/auroc" for m in (2, 3, 4)} <= set(run.data.metrics)
    assert sum(name.startswith("total_purchases/") for name in run.data.metrics) > 20
    assert run.data.metrics["archive/p95_ms"] > 0
    card = (folder / "model_card.md").read_text()
    assert "# Model card: churn-prediction" in card and "By period:" in card and "Gates: passed" in card
    assert "| bg_nbd |" in card and run.data.tags["data_sha256"] in card

"""Judges a model by the gates, as the step of the loop does it."""

import json
from functools import partial

import pandas as pd

from churn.settings import Settings
from core.workspace import Workspace
from support.fits import trained_model
from training.gates import Evidence, GateReport, judge
from training.gates.champion_scores import score_champion
from training.gates.collect import collect_evidence
from training.release.package import stage

STORE = "project: churn\n"


def evidence_of(settings: Settings, rows: pd.DataFrame, files: Workspace, **given: object) -> Evidence:
    model = trained_model(settings, files)
    given.setdefault("stage", partial(stage, model, STORE))
    return collect_evidence(rows, model, settings.gates, **given)  # type: ignore[arg-type]


def judged(settings: Settings, rows: pd.DataFrame, files: Workspace, **given: object) -> GateReport:
    return judge(settings.gates, evidence_of(settings, rows, files, **given))


def refusals(report: GateReport) -> set[str]:
    return {verdict.rule for verdict in report.refusals}


def write_manifest(files: Workspace) -> None:
    files.data.mkdir(parents=True, exist_ok=True)
    window = {"start": "1997-01-01T00:00:00+00:00", "end": "1998-07-01T00:00:00+00:00"}
    files.manifest.write_text(json.dumps({"id_type": "integer", "window": window}))


def in_registry(settings: Settings, folder: object) -> Settings:
    """Settings whose MLflow is in `folder`."""
    training = settings.training.model_copy(
        update={"tracking_uri": f"sqlite:///{folder}/mlflow.db", "artifacts_uri": f"{folder}/artifacts"}
    )
    return settings.model_copy(update={"training": training})


__all__ = ["STORE", "evidence_of", "in_registry", "judged", "refusals", "score_champion", "write_manifest"]

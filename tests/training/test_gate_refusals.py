"""Real models before the default gates: the honest one passes, each kind of bad one is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from churn.settings import Settings
from data.workspace import Workspace
from features.spec import Feature
from model.export import export_program
from model.program import Program
from training.evidence import collect_evidence
from training.gates import GateReport, judge
from training.train import train


def judged(settings: Settings, rows: pd.DataFrame, files: Workspace) -> GateReport:
    evidence = collect_evidence(rows, "transactions", settings.features, settings.training, files)
    return judge(settings.gates, evidence)


def refusals(report: GateReport) -> set[str]:
    return {verdict.rule for verdict in report.refusals}


def test_the_honest_model_passes(small: Settings, rows: pd.DataFrame, trained: Workspace) -> None:
    report = judged(small, rows, trained)

    assert refusals(report) == set()
    assert report.passed
    assert report.to_json() == judged(small, rows, trained).to_json()  # no time, no chance in it


def quick(settings: Settings, **training: object) -> Settings:
    update = {"epochs": 2, "baselines": ("base_rate", "logistic_regression"), **training}
    return settings.model_copy(
        update={
            "training": settings.training.model_copy(update=update),
            "model": settings.model.model_copy(update={"seeds": (0,)}),
        }
    )


def test_shuffled_targets_are_refused(small: Settings, rows: pd.DataFrame, tmp_path) -> None:
    """A model of noise, judged on the true labels."""
    settings, files = quick(small), Workspace(tmp_path)
    draw = np.random.default_rng(0)
    train(
        rows.assign(churned=draw.permutation(rows["churned"])),
        "transactions",
        settings.features,
        settings.model,
        settings.training,
        files,
    )
    assert "floors.auroc" in refusals(judged(settings, rows, files))


def test_a_label_that_stands_in_the_features_is_refused(
    small: Settings, rows: pd.DataFrame, tmp_path
) -> None:
    """`recency_days > 90` as the label: the recipe that reaches 1.000 / 1.000 / 1.000."""
    settings, files = quick(small), Workspace(tmp_path)
    leaky = rows.assign(churned=(rows["recency_days"] > 90).astype("int8"))
    train(leaky, "transactions", settings.features, settings.model, settings.training, files)

    assert refusals(judged(settings, leaky, files)) >= {"leak.model", "leak.feature"}


def test_a_single_leaking_feature_is_refused_even_if_the_network_ignores_it(
    small: Settings, rows: pd.DataFrame, trained: Workspace
) -> None:
    """A category that is written after the fact; the probe sees it in whatever form it comes."""
    spec = small.features.model_copy(
        update={"features": (*small.features.features, Feature(name="status", dtype="string"))}
    )
    status = np.where(rows["churned"] == 1, "closed", "open")
    evidence = collect_evidence(rows.assign(status=status), "transactions", spec, small.training, trained)

    assert evidence.single_feature_auroc["status"] == 1.0
    assert "leak.feature" in refusals(judge(small.gates, evidence))


def test_an_overconfident_model_is_refused(small: Settings, rows: pd.DataFrame, workspace: Workspace) -> None:
    program = Program.load(workspace.training / "members.ckpt")
    program.calibration.slope.fill_(4.0)
    export_program(program, workspace.training / "model.pt2")

    found = refusals(judged(small, rows, workspace))

    assert {"calibration", "parity"} <= found
    assert "beats_baselines.logistic_regression" in found


def test_a_program_that_is_not_the_checkpoint_is_refused(
    small: Settings, rows: pd.DataFrame, workspace: Workspace
) -> None:
    program = Program.load(workspace.training / "members.ckpt")
    with torch.no_grad():
        program.members[0].deep[-1].bias += 1e-4  # type: ignore[union-attr, index, operator]
    export_program(program, workspace.training / "model.pt2")

    assert refusals(judged(small, rows, workspace)) == {"parity"}


@pytest.mark.parametrize("name", ["model.pt2", "members.ckpt", "inputs.json", "test_scores.parquet"])
def test_a_missing_or_damaged_file_refuses_the_model(
    small: Settings, rows: pd.DataFrame, workspace: Workspace, name: str
) -> None:
    file = workspace.training / name
    for damage in (lambda: file.write_bytes(b"PK damaged"), file.unlink):
        damage()
        report = judged(small, rows, workspace)
        assert "evidence" in refusals(report)
        assert len(refusals(report)) > 1


def test_scores_of_other_rows_are_refused(small: Settings, rows: pd.DataFrame, workspace: Workspace) -> None:
    file = workspace.training / "test_scores.parquet"
    pd.read_parquet(file).iloc[1:].to_parquet(file)

    assert "evidence" in refusals(judged(small, rows, workspace))

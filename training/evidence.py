"""Gather what the gates judge: from the files that would be packaged, not from what training said of them."""

import hashlib
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.workspace import Workspace
from features.spec import FeaturesConfig
from model.export import load_program
from model.program import Program, score
from training.config import TrainingConfig
from training.gates import Evidence
from training.inputs import Inputs
from training.metrics import evaluate
from training.split import Shape
from training.train import KEYS, prepare

UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, UnpicklingError, BadZipFile)
"""What a missing, damaged or foreign file raises in the libraries that read it."""

PROBE_ROWS = 50_000
"""Training rows that a single-feature model learns from: a leak shows in far fewer."""


def collect_evidence(
    data: pd.DataFrame, shape: Shape, spec: FeaturesConfig, training: TrainingConfig, files: Workspace
) -> Evidence:
    """Score the test rows of `data` again, with the exported program and with the checkpoint.

    Metrics are the program's own, labels those of `data`. A file that cannot be read becomes a problem of
    the evidence, which no gate forgives. Raises TrainingError where `data` itself cannot be split.
    """
    rows, split = prepare(data, shape, spec, training)
    train, test = rows.iloc[split.train], rows.iloc[split.test]
    evidence = Evidence(
        program_sha256="",
        rows=len(test),
        expected_baselines=training.baselines,
        single_feature_auroc=single_feature_auroc(train, test, spec, training.seed),
    )
    for gather in (_program, _baselines):
        try:
            evidence = gather(evidence, test, training, files.training)
        except UNREADABLE as error:
            problem = f"{gather.__name__.strip('_')}: {type(error).__name__}: {' '.join(str(error).split())}"
            evidence = replace(evidence, problems=(*evidence.problems, problem[:200]))
    return evidence


def single_feature_auroc(
    train: pd.DataFrame, test: pd.DataFrame, spec: FeaturesConfig, seed: int
) -> dict[str, float]:
    """AUROC on the test rows of a small tree on each feature: it sees thresholds, bands, gaps, categories."""
    from sklearn.metrics import roc_auc_score
    from sklearn.tree import DecisionTreeClassifier

    probe = train.sample(min(len(train), PROBE_ROWS), random_state=seed)
    inputs = Inputs.learn(train, spec)
    learned, judged = (np.hstack(inputs.encode(part)) for part in (probe, test))
    found = {}
    for column, name in enumerate((*inputs.numeric, *inputs.vocabulary)):
        tree = DecisionTreeClassifier(max_leaf_nodes=64, min_samples_leaf=5, random_state=seed)
        tree.fit(learned[:, [column]], probe["churned"])
        found[name] = float(roc_auc_score(test["churned"], tree.predict_proba(judged[:, [column]])[:, -1]))
    return found


def _program(evidence: Evidence, test: pd.DataFrame, training: TrainingConfig, folder: Path) -> Evidence:
    arrays = Inputs.read(folder / "inputs.json").encode(test)
    program = folder / "model.pt2"
    exported = score(load_program(program), *arrays)
    eager = score(Program.load(folder / "members.ckpt"), *arrays)
    return replace(
        evidence,
        program_sha256=hashlib.sha256(program.read_bytes()).hexdigest(),
        metrics=evaluate(test["churned"], exported, training.threshold),
        program_difference=_difference(exported, eager),
    )


def _baselines(evidence: Evidence, test: pd.DataFrame, training: TrainingConfig, folder: Path) -> Evidence:
    stored = pd.read_parquet(folder / "test_scores.parquet")
    for key in KEYS:
        if not np.array_equal(stored[key].to_numpy(), test[key].to_numpy()):
            raise ValueError("test_scores.parquet is of other rows than these; run `churn train` again")
    columns: dict[str, str] = {name: f"baseline_{name}" for name in training.baselines}
    scored = {name: stored[column] for name, column in columns.items() if column in stored}
    found = {name: evaluate(test["churned"], scores, training.threshold) for name, scores in scored.items()}
    return replace(evidence, baselines=found)


def _difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Largest distance; NaN if any score is NaN."""
    return float(np.abs(one - other).max())

"""Collects the evidence for the gates from the files that would be packaged, not from results of training."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.errors import PackagingError
from features.spec import FeaturesConfig
from handlers.bundle import BundleError
from model.export import load_program
from model.program import Program, score
from training.archive.verify import verify_trusted
from training.config import GatesConfig
from training.evaluate.bootstrap import Resampling
from training.gates import Champion, Evidence, Sample, compose
from training.gates.champion_scores import align_champion, score_champion
from training.gates.measure import measure
from training.gates.slices import divide, periods_of, segments_of
from training.gates.worst_part import Stable
from training.learn.inputs import Inputs
from training.learn.metrics import evaluate
from training.train import KEYS, prepare
from training.trained import TrainedModel

UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, UnpicklingError, BadZipFile,
              BundleError, PackagingError)  # fmt: skip
"""What libraries raise for a missing or damaged file, or one of another format."""

PROBE_ROWS = 50_000
"""Training rows of a single-feature model; a leak is visible with far fewer."""

Rival = Callable[[pd.DataFrame], tuple[Champion, pd.DataFrame | None]]


@dataclass(frozen=True)
class Case:
    """The model to evaluate, the test rows, and the functions that make the rest of the evidence."""

    test: pd.DataFrame
    model: TrainedModel
    gates: GatesConfig
    stage: Callable[[], Path] | None
    champion: Rival


def collect_evidence(
    data: pd.DataFrame,
    model: TrainedModel,
    gates: GatesConfig,
    stage: Callable[[], Path] | None = None,
    champion: Rival | None = None,
) -> Evidence:
    """Scores the test rows of `data` again, with the exported program, the checkpoint and the champion.

    Metrics are those of the exported program with the labels of `data`, at the packaged threshold. `stage`
    makes the candidate archive and returns its path; `champion` scores rows with the champion (default: from
    the registry). A file that cannot be read becomes a problem of the evidence, which is always a failed
    verdict. Raises TrainingError if `data` cannot be split, ConfigError for an unknown segment.
    """
    settings, files = model.settings, model.files
    spec, training = settings.spec, settings.training
    rows, split = prepare(data, settings)
    train, test = rows.iloc[split.train], rows.iloc[split.test]
    rival = champion or (lambda test: score_champion(test, spec, training, files))
    case = Case(test, model, gates, stage, rival)
    evidence = Evidence(
        program_sha256="",
        rows=len(test),
        expected_baselines=training.baselines_of(settings.shape),
        expected_groups=tuple(group.column for group in gates.groups),
        single_feature_auroc=single_feature_auroc(train, test, spec, training.seed),
    )
    segments = segments_of(test, spec, gates.segments)
    groups = divide(test, gates.groups, "gates.groups")
    for gather in (_program, _baselines, _champion, _archive):
        try:
            evidence = gather(evidence, case)
        except UNREADABLE as error:
            problem = f"{gather.__name__.strip('_')}: {type(error).__name__}: {' '.join(str(error).split())}"
            evidence = replace(evidence, problems=(*evidence.problems, problem[:200]))
    if evidence.sample is not None:
        sample = replace(evidence.sample, segments=segments, groups=groups)
        evidence = replace(evidence, sample=sample)
    return evidence


def single_feature_auroc(
    train: pd.DataFrame, test: pd.DataFrame, spec: FeaturesConfig, seed: int
) -> dict[str, float]:
    """Feature -> AUROC on the test rows of a small decision tree on this feature alone.

    A tree detects thresholds, bands, gaps and categories.
    """
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


def _program(evidence: Evidence, case: Case) -> Evidence:
    folder, threshold = case.model.files.training, case.model.threshold
    arrays = Inputs.read(folder / "inputs.json").encode(case.test)
    program = folder / "model.pt2"
    exported = score(load_program(program), *arrays)
    eager = score(Program.load(folder / "members.ckpt"), *arrays)
    churned = case.test["churned"].to_numpy(dtype=np.float64)
    gates, seed = case.gates, case.model.settings.training.seed
    sample = Sample(
        customer=pd.factorize(case.test["user_id"], sort=True)[0].astype(np.int64),
        churned=churned,
        score=exported,
        threshold=threshold,
        periods=periods_of(case.test, _rows_of_a_period(gates)),
        how=Resampling(gates.resamples, gates.confidence, seed),
    )
    return replace(
        evidence,
        program_sha256=hashlib.sha256(program.read_bytes()).hexdigest(),
        metrics=evaluate(churned, exported, threshold),
        program_difference=_difference(exported, eager),
        sample=sample,
    )


def _rows_of_a_period(gates: GatesConfig) -> int:
    """The `min_rows` of the rule `stability`."""
    rule = compose(gates).get("stability", Stable())
    assert isinstance(rule, Stable)
    return rule.min_rows


def _baselines(evidence: Evidence, case: Case) -> Evidence:
    stored = pd.read_parquet(case.model.files.training / "test_scores.parquet")
    for key in KEYS:
        if not np.array_equal(stored[key].to_numpy(), case.test[key].to_numpy()):
            raise ValueError("test_scores.parquet is of other rows than these; run `churn train` again")
    columns: dict[str, str] = {name: f"baseline_{name}" for name in evidence.expected_baselines}
    found = {
        name: stored[column].to_numpy(dtype=np.float64)
        for name, column in columns.items()
        if column in stored
    }
    return _with(evidence, baselines=found)


def _champion(evidence: Evidence, case: Case) -> Evidence:
    champion, scores = align_champion(*case.champion(case.test), case.test)
    return _with(replace(evidence, champion=champion), champion=scores)


def _archive(evidence: Evidence, case: Case) -> Evidence:
    if case.stage is None:
        return evidence
    candidate = case.stage()  # before the signers are read: a new workspace has no signer until it signs
    training, files = case.model.settings.training, case.model.files
    measured = measure(verify_trusted(candidate, training, files, judged=False), case.test)
    numbers = {"megabytes": measured.megabytes, "p50_ms": measured.p50_ms, "p95_ms": measured.p95_ms}
    return replace(evidence, packaged_sha256=measured.program_sha256, archive=numbers)


def _with(evidence: Evidence, **of_the_sample: object) -> Evidence:
    """Adds fields to the sample. Without a program there is no sample, which is recorded as a problem."""
    if evidence.sample is None:
        return evidence
    return replace(evidence, sample=replace(evidence.sample, **of_the_sample))  # type: ignore[arg-type]


def _difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Largest absolute difference; NaN if any score is NaN."""
    return float(np.abs(one - other).max())

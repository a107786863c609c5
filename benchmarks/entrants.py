"""The scores of every model on a contest's test rows, each in a separate file.

Seconds are those of one core (a model has one thread), so that a busy machine does not change them.
"""

import json
import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import contests
from benchmarks.contests import ROOT, Contest, Fold
from benchmarks.rivals import RIVALS, UNTUNED, WITHOUT_SEED, Rows, clipped, fitted_scores, source_of, tuned
from churn.settings import load_settings
from training.evaluate.baselines import Task, bg_nbd
from training.learn.fit import fit
from training.learn.inputs import Inputs
from training.learn.resolved import FitSettings

OURS = "ours"
BG_NBD = "bg_nbd"
SEED_STEP = 1000
"""Difference between the seeds of two fits of ours: the members of a fit use the numbers that follow."""
Scores = NDArray[np.float64]

LEARNS = ("model", "training", "handlers/scoring/encoding.py", "configs/model.yaml", "configs/training.yaml")
READS = ("data", "features", "configs/data.yaml", "configs/features.yaml", "training/learn/split.py",
         *(f"benchmarks/{name}.py" for name in ("logs", "tables", "simulated", "contests")))  # fmt: skip
PREPROCESSED = {"logistic_regression": ("model/preprocessing.py",), BG_NBD: ("training/learn/bg_nbd.py",)}
"""What decides each kind of result, beside the rivals' own code and the encoded rows."""


@dataclass(frozen=True)
class Job:
    """One model on one data set; `out` holds the contest's rows and takes its scores."""

    data: str
    model: str
    seeds: int
    trials: int
    folds: int | None
    out: Path

    @property
    def file(self) -> Path:
        return scores_file(self.out, self.data, self.model)


def contest_file(out: Path, data: str) -> Path:
    return out / "rows" / f"{data}.pickle"


def scores_file(out: Path, data: str, model: str) -> Path:
    return out / "scores" / data / f"{model}.npz"


def prepare(data: str, out: Path, telco: Path) -> bool:
    """Build the contest's rows unless they are there; False where the data is not to be had."""
    file, stamp = contest_file(out, data), digest(READS)
    noted = file.with_suffix(".stamp")
    if file.is_file() and noted.is_file() and noted.read_text() == stamp:
        return True
    contest = contests.load(data, telco)
    if contest is None:
        return False
    contest.write(file)
    noted.write_text(stamp)
    return True


def run(job: Job) -> float:
    """Fit and score unless that was done with the same code on the same rows; the seconds it took."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    contest = Contest.read(contest_file(job.out, job.data))
    stamp = _stamp(contest, job)
    if job.file.is_file():
        with np.load(job.file) as content:
            if str(content["stamp"]) == stamp:
                return 0.0
    folds = contest.judged[: job.folds]
    given, seconds_tuning = _settings(contest, job)
    seeds = range(1 if job.model in (*WITHOUT_SEED, BG_NBD) else job.seeds)
    scores, seconds = [], []
    for seed in seeds:
        parts = []
        for fold in folds:
            begun = time.process_time()
            parts.append(clipped(_scores(contest, fold, job.model, given, seed)))
            seconds.append(time.process_time() - begun)
        scores.append(np.concatenate(parts))
    job.file.parent.mkdir(parents=True, exist_ok=True)
    partial = job.file.with_suffix(".partial.npz")
    np.savez(
        partial,
        stamp=stamp,
        test=contest.test_digest(job.folds),
        scores=np.stack(scores),
        seconds=np.mean(seconds),
        seconds_tuning=seconds_tuning,
        given=json.dumps(given),
    )
    partial.replace(job.file)
    return time.perf_counter() - start


def _stamp(contest: Contest, job: Job) -> str:
    """Of everything that decides the scores."""
    parts = [contest.digest(), job.seeds, job.folds]
    if job.model.startswith(OURS):
        return json.dumps([*parts, digest(LEARNS)])
    own = source_of(job.model) if job.model in RIVALS else ""
    code = sha256(own.encode() + Rows.of(contest, contest.judged[0]).content()).hexdigest()[:16]
    return json.dumps([*parts, job.trials, code, digest(PREPROCESSED.get(job.model, ()))])


def _settings(contest: Contest, job: Job) -> tuple[dict[str, Any], float]:
    if job.model.startswith(OURS) or job.model in (BG_NBD, *UNTUNED):
        return {}, 0.0
    start = time.process_time()
    given = tuned(job.model, [Rows.of(contest, fold) for fold in contest.chosen], job.trials)
    return given, time.process_time() - start


def _scores(contest: Contest, fold: Fold, model: str, given: dict[str, Any], seed: int) -> Scores:
    if model.startswith(OURS):
        return ours(contest, fold, seed)
    if model == BG_NBD:
        return purchase_process(contest, fold)
    return fitted_scores(model, given, Rows.of(contest, fold), seed)


def ours(contest: Contest, fold: Fold, seed: int) -> Scores:
    """By config alone: the shipped configs and the rule of training/learn/recipe.py."""
    settings = load_settings()
    train, test = (contest.rows.iloc[part] for part in fold)
    training = settings.training.model_copy(update={"seed": settings.training.seed + SEED_STEP * seed})
    fitted = fit(train, None, FitSettings(contest.shape, contest.spec, settings.model, training))
    return fitted.score(test)


def purchase_process(contest: Contest, fold: Fold) -> Scores:
    assert contest.records is not None
    train, test = (contest.rows.iloc[part] for part in fold)
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records.parquet"
        contest.records.to_parquet(records)
        inputs = Inputs.learn(train, contest.spec)
        return bg_nbd(Task(train, test, inputs, contest.spec.horizon, records, seed=0))


def digest(paths: tuple[str, ...]) -> str:
    """Of the source text below `paths`."""
    files = [file for path in paths for file in sorted([ROOT / path, *(ROOT / path).rglob("*")])]
    text = b"".join(file.read_bytes() for file in files if file.suffix in (".py", ".yaml"))
    return sha256(text).hexdigest()[:16]

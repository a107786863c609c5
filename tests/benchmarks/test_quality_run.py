"""The quality benchmark goes on where it was stopped, and reports what was saved."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.contests import TELCO
from benchmarks.entrants import Job, prepare, run, scores_file
from benchmarks.quality_report import save, scored

DATA = "linear"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    assert prepare(DATA, tmp_path, TELCO)
    return Job(DATA, "logistic_regression", seeds=2, trials=2, folds=None, out=tmp_path)


def test_what_was_scored_is_not_scored_again(job: Job) -> None:
    assert run(job) > 0
    before = job.file.stat().st_mtime_ns
    assert run(job) == 0
    assert job.file.stat().st_mtime_ns == before


def test_another_number_of_trials_is_another_result(job: Job) -> None:
    run(job)
    assert run(Job(DATA, job.model, job.seeds, trials=3, folds=None, out=job.out)) > 0


def test_better_worse_and_equal_models_are_counted_as_such(job: Job) -> None:
    run(job)
    with np.load(job.file) as content:
        saved = dict(content)
    logit = np.log(saved["scores"] / (1 - saved["scores"]))

    def pretend(model: str, scores: np.ndarray) -> None:
        np.savez(scores_file(job.out, DATA, model), **saved | {"scores": scores})

    three = np.array([[0.999], [1.0], [1.001]])
    worse, worst = (1 / (1 + np.exp(-factor * three * logit)) for factor in (3, 6))
    pretend("ours", worse)
    pretend("random_forest", worst)
    pretend("lightgbm", worse[::-1])
    results = scored(job.out, "ours", None)
    save(results, job.out)
    found = results[DATA]["models"]
    assert found["logistic_regression"]["verdict"] == "loss"
    assert found["random_forest, averaged"]["verdict"] == "win"
    assert found["lightgbm"]["verdict"] == "tie"
    assert json.loads((job.out / "quality.json").read_text())[DATA]["developed_on"]
    table = (job.out / "quality.md").read_text()
    assert "| random_forest | 1 | 0 | 0 |" in table
    assert "| logistic_regression | 0 | 0 | 1 |" in table
    assert (job.out / "quality.png").stat().st_size > 0


def test_scores_of_other_test_rows_take_no_part(job: Job) -> None:
    run(job)
    with np.load(job.file) as content:
        saved = dict(content)
    np.savez(scores_file(job.out, DATA, "ours"), **saved)
    np.savez(scores_file(job.out, DATA, "catboost"), **saved | {"test": "others"})
    assert "catboost" not in scored(job.out, "ours", None)[DATA]["models"]

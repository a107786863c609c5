"""The final fit: choose calibration, fit every member, score the test rows, export, write."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.errors import TrainingError
from core.workspace import Workspace, replaced_directory
from model.config import ModelConfig
from model.export import export_program, load_program
from training.evaluate.appraisal import write_appraisal
from training.evaluate.baselines import Task, fit_baselines
from training.evaluate.cross_validation import cross_validate
from training.evaluate.importance import importances
from training.learn.calibration_choice import choose_calibration
from training.learn.fit import Fitted, fit
from training.learn.inputs import Inputs
from training.learn.metrics import evaluate
from training.learn.recipe import resolve
from training.learn.resolved import FitSettings
from training.learn.split import Split, split_rows

KEYS = ("event_timestamp", "user_id")


@dataclass(frozen=True)
class TrainingResult:
    """The content of `metrics.json`."""

    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    seconds: dict[str, float]
    rows: dict[str, int]
    split: str
    """How the test rows were chosen (training/learn/split.py)."""
    calibration: dict[str, float]

    def to_json(self) -> str:
        """The content of metrics.json."""
        return json.dumps(self.__dict__, indent=1)


def train(
    data: pd.DataFrame,
    settings: FitSettings,
    files: Workspace,
    progress: Callable[[str], None] = lambda message: None,
) -> TrainingResult:
    """Fits on the training rows of `data` (user_id, event_timestamp, churned, inputs), scores the test rows.

    Replaces `files.training` as a whole: `model.pt2`, `members.ckpt`, `settled.json` (the resolved value
    of every setting), `metrics.json`, `baselines.json`, `inputs.json`, `test_scores.parquet` (user_id,
    event_timestamp, churned, score, baseline_<name>) and `appraisal.json` (cross-validation, importance).
    Raises TrainingError if the rows cannot be split; the files of the last training then remain.
    """
    rows, split = prepare(data, settings)
    settings = resolve(settings, len(split.train))
    training = settings.training
    train_rows, test_rows = rows.iloc[split.train], rows.iloc[split.test]

    start = perf_counter()
    calibration = choose_calibration(rows, split, settings, progress)
    fitted = fit(train_rows, None, settings, progress)
    fitted.program.calibration = calibration
    scores = fitted.score(test_rows)
    seconds = {"network": perf_counter() - start}

    spec, names = settings.spec, training.baselines_of(settings.shape)
    inputs = Inputs.learn(train_rows, spec)
    task = Task(train_rows, test_rows, inputs, spec.horizon, files.records, training.seed)
    baseline_scores, baseline_seconds = fit_baselines(names, task, settings.shape, progress)
    churned = test_rows["churned"].to_numpy()
    result = TrainingResult(
        metrics=evaluate(churned, scores, training.threshold),
        baselines={k: evaluate(churned, v, training.threshold) for k, v in baseline_scores.items()},
        seconds=seconds | baseline_seconds,
        rows={"train": len(split.train), "test": len(split.test)},
        split=split.rule,
        calibration={"slope": float(calibration.slope), "shift": float(calibration.shift)},
    )
    check = cross_validate(rows, split, fitted, progress)
    progress("exporting the program")
    with replaced_directory(files.training) as folder:
        _write(
            folder, fitted, settings.model, result, test_rows, {"score": scores} | _prefixed(baseline_scores)
        )
        progress("importance of the features")
        exported = load_program(folder / "model.pt2")
        found = importances(exported, fitted.inputs, spec, test_rows, training.seed)
        write_appraisal(folder, check, found)
    return result


def prepare(data: pd.DataFrame, settings: FitSettings) -> tuple[pd.DataFrame, Split]:
    """The rows sorted by KEYS, on which seeded draws depend, and their split.

    Raises TrainingError for a missing column or a label other than 0 and 1.
    """
    spec = settings.spec
    if missing := [c for c in (*KEYS, "churned", *spec.numeric, *spec.categorical) if c not in data]:
        raise TrainingError(f"the training set lacks {', '.join(missing)}; run `churn features build` again")
    if not data["churned"].isin([0, 1]).all():
        raise TrainingError("churned holds values other than 0 and 1; run `churn features build` again")
    rows = data.sort_values(list(KEYS), ignore_index=True)
    keys = rows[["user_id", "event_timestamp", "churned"]]
    return rows, split_rows(keys, settings.shape, spec.horizon, settings.training)


def _write(
    folder: Path,
    fitted: Fitted,
    model: ModelConfig,
    result: TrainingResult,
    test_rows: pd.DataFrame,
    scores: dict[str, NDArray[np.float64]],
) -> None:
    export_program(fitted.program, folder / "model.pt2")
    fitted.program.save(folder / "members.ckpt", fitted.inputs.cardinalities, model)
    fitted.record.write(folder)
    (folder / "inputs.json").write_text(fitted.inputs.to_json(), encoding="utf-8")
    (folder / "metrics.json").write_text(result.to_json(), encoding="utf-8")
    (folder / "baselines.json").write_text(json.dumps(result.baselines, indent=1), encoding="utf-8")
    keys = test_rows[["user_id", "event_timestamp", "churned"]].reset_index(drop=True)
    keys.assign(**scores).to_parquet(folder / "test_scores.parquet", index=False)


def _prefixed(scores: dict[str, Any]) -> dict[str, Any]:
    return {f"baseline_{name}": values for name, values in scores.items()}

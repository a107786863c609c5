"""One trial: fits the configuration of a point of the space and evaluates it on validation rows.

A log is evaluated forward in time, over the origins of training/learn/forward.py, with the combination of
paths that would be packaged; a table on the inner validation rows.
"""

import json
import signal
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytorch_lightning as pl
from numpy.typing import NDArray
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from scipy.special import expit

from training.config import Range
from training.learn.fit import evaluate_forward, fit
from training.learn.metrics import evaluate
from training.learn.module import VALIDATION_LOSS
from training.learn.resolved import FitSettings
from training.learn.split import Shape, Split
from training.tuning.space import apply, suggest
from training.tuning.study import AS_GIVEN


class Stopped(BaseException):
    """The study has to end now. Not an Exception, since the trial has not failed and runs again."""


def judged_rows(rows: pd.DataFrame, split: Split, shape: Shape) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Training and validation rows of a study: for a log all training rows and None, since origins divide
    them; for a table the two inner parts."""
    if shape == "transactions":
        return rows.iloc[split.train], None
    return rows.iloc[split.inner_train], rows.iloc[split.inner_validation]


class Objective:
    """The log-loss of a trial's configuration with one member, on the rows that `judged_rows` gives."""

    def __init__(
        self,
        train: pd.DataFrame,
        validation: pd.DataFrame | None,
        settings: FitSettings,
        space: Mapping[str, Range],
        artifacts: Path,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._train, self._validation, self._settings = train, validation, one_member(settings)
        self._space, self._artifacts, self._stopping = space, artifacts, stopping

    def __call__(self, trial: optuna.Trial) -> float:
        """Raises TrialPruned if the trial is worse than the median or its loss is not finite."""
        searched = {} if trial.user_attrs.get(AS_GIVEN) else self._space
        chosen = {key: suggest(trial, key, within) for key, within in searched.items()}
        settings = apply(chosen, self._settings)
        pruning = PruningCallback(trial, self._stopping)
        try:
            scores, churned = self._judged(settings, pruning)
        except SystemExit as ended:
            if not isinstance(ended.__context__, KeyboardInterrupt):
                raise
            # Lightning turns Ctrl-C into exit(1) and ignores further signals; both are restored here
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from None
        except optuna.TrialPruned:
            self._upload(trial, {"steps": pruning.losses}, None)
            raise
        if not np.isfinite(scores).all():
            raise optuna.TrialPruned
        metrics = evaluate(churned, scores, settings.training.threshold)
        self._upload(trial, metrics | {"steps": pruning.losses}, draw_calibration(churned, scores))
        return metrics["log_loss"]

    def _judged(
        self, settings: FitSettings, pruning: "PruningCallback"
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Scores and labels [B] of the validation rows."""
        if self._validation is None:
            found = evaluate_forward(self._train, settings, [pruning], pruning.judged)
            return expit(found.logits), found.churned
        fitted = fit(self._train, self._validation, settings, callbacks=[pruning])
        return fitted.score(self._validation), self._validation["churned"].to_numpy(dtype=np.int64)

    def _upload(self, trial: optuna.Trial, metrics: dict[str, Any], plot: bytes | None) -> None:
        """Uploads the trial's files as artifacts for Optuna's dashboard."""
        self._artifacts.mkdir(parents=True, exist_ok=True)
        store = FileSystemArtifactStore(self._artifacts)
        files = {"metrics.json": json.dumps(metrics, indent=1).encode()}
        if plot is not None:
            files["calibration.png"] = plot
        with tempfile.TemporaryDirectory() as scratch:
            for name, content in files.items():
                file = Path(scratch) / name
                file.write_bytes(content)
                upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=trial)


def one_member(settings: FitSettings) -> FitSettings:
    """The settings with one member, enough to compare points: points differ by more than members gain."""
    seeds = (settings.model.seeds or (0,))[:1]
    return replace(settings, model=settings.model.model_copy(update={"seeds": seeds}))


class PruningCallback(pl.Callback):
    """Prunes a trial whose log-loss is above the median after an origin of a log or an epoch of a table, and
    raises Stopped when the study has to end.

    Optuna's callback imports `lightning`, which is another package than `pytorch_lightning`.
    """

    def __init__(self, trial: optuna.Trial, stopping: Callable[[], bool]) -> None:
        self._trial, self._stopping = trial, stopping
        self.losses: list[float] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._stopping():
            raise Stopped

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if VALIDATION_LOSS in trainer.callback_metrics:
            self.judged(float(trainer.callback_metrics[VALIDATION_LOSS]))

    def judged(self, loss: float) -> None:
        """Reports the loss of a step. Raises TrialPruned if it is above the median or not finite."""
        if not isfinite(loss):
            raise optuna.TrialPruned
        self._trial.report(loss, len(self.losses))
        self.losses.append(loss)
        if self._trial.should_prune():
            raise optuna.TrialPruned


def draw_calibration(churned: NDArray[Any], scores: NDArray[np.float64], bins: int = 10) -> bytes:
    """PNG of a calibration plot: observed against predicted churn in `bins` groups of equal size."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    groups = [group for group in np.array_split(np.argsort(scores, kind="stable"), bins) if len(group)]
    predicted = [float(scores[group].mean()) for group in groups]
    axes.plot([0, 1], [0, 1], color="#8a94a3", linewidth=0.8, linestyle=":")
    axes.plot(predicted, [float(churned[group].mean()) for group in groups], color="#1f5fbf", marker="o")
    axes.set(xlabel="predicted churn", ylabel="observed churn", title="Calibration on the validation rows")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()

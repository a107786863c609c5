"""The paths of a model, fitted to folds: linear path and network, and the choice that weighs them.

training/learn/stacking.py uses them for tables, training/learn/forward_stacking.py for logs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.network import Network
from model.wide import Combination, Wide, stacked
from training.learn.boosting import Fold
from training.learn.datamodule import JUDGED_AT_ONCE, ChurnData, Rows
from training.learn.metrics import logit_loss
from training.learn.module import ChurnModule
from training.learn.recipe import FIRST_STEPS
from training.learn.resolved import ResolvedSettings, ResolvedTraining
from training.trees.growth import Growth

PENALTIES = (1.0, 10.0, 100.0)
"""Penalties of the linear path; the larger ones are for tables with too few rows for their columns."""
LEAST_GAIN = 1e-4
"""The search of the epochs stops when a doubling lowers the log-loss by less, for a log as for a table."""
DOUBLINGS = 3
"""Numbers of epochs that are tried at most, each twice the one before."""
LEAST_FIRST_GAIN = 0.5
"""Standard errors by which the network has to improve the first fold before the other folds are tried."""

Logits = NDArray[np.float64]


@dataclass(frozen=True)
class StackingChoice:
    """The settings for the fit to all rows, and the weights of the paths."""

    epochs: int
    penalty: float
    combination: Combination
    forest: tuple[tuple[float, Growth], ...] = ()
    """Shapes of trees with their shares of the trees' logit, which sum to 1; empty without trees."""


def best_line(
    rows: Rows, folds: Sequence[Fold], churned: NDArray[np.int64], cardinalities: tuple[int, ...]
) -> tuple[float, Logits]:
    """The penalty with the least out-of-fold log-loss, and its logits in the order of the folds."""
    penalty, found = best_lines(rows, folds, churned, cardinalities)
    return penalty, np.concatenate([judged for _, judged in found])


def best_lines(
    rows: Rows, folds: Sequence[Fold], churned: NDArray[np.int64], cardinalities: tuple[int, ...]
) -> tuple[float, list[tuple[Logits, Logits]]]:
    """As `best_line`, with the logits of each fold's training rows and of its validation rows."""
    found = {penalty: [_line(rows, fold, penalty, cardinalities) for fold in folds] for penalty in PENALTIES}

    def loss(penalty: float) -> float:
        return logit_loss(churned, np.concatenate([judged for _, judged in found[penalty]]))

    penalty = min(found, key=loss)
    return penalty, found[penalty]


def _line(rows: Rows, fold: Fold, penalty: float, cardinalities: tuple[int, ...]) -> tuple[Logits, Logits]:
    wide = Wide(rows[0].shape[1], cardinalities)
    learned, judged = (torch.from_numpy(part) for part in fold)
    numeric, categorical, churned = (part[learned] for part in rows)
    wide.solve(numeric, categorical, churned, penalty)
    return path_logits(wide, rows, learned), path_logits(wide, rows, judged)


@dataclass(frozen=True)
class DeepPath:
    """The network out of fold. It takes most of the time, so the first fold decides if the rest is tried."""

    rows: Rows
    settings: ResolvedSettings
    bins: list[list[float]]
    cardinalities: tuple[int, ...]
    callbacks: tuple[pl.Callback, ...] = ()

    def tried(
        self, folds: Sequence[Fold], churned: NDArray[np.int64], shallow: Logits
    ) -> tuple[int, Logits] | None:
        """Epochs and logits of all folds; None if the first fold does not improve on the logits `shallow`."""
        size = len(folds[0][1])
        labels, others = churned[:size], shallow[:size]
        without = stacked(others[:, None], labels)[1]
        best: tuple[int, Logits, NDArray[np.float64]] | None = None
        for epochs in _ladder(len(self.rows[0]), self.settings.training):
            logits = self.logits(folds[0], epochs)
            losses = stacked(np.column_stack([others, logits]), labels)[1]
            if best is not None and not losses.mean() < best[2].mean() - LEAST_GAIN:
                break
            best = epochs, logits, losses
            gain = without - losses
            if gain.mean() <= LEAST_FIRST_GAIN * gain.std() / np.sqrt(size):
                return None
        assert best is not None
        epochs, first, _ = best
        return epochs, np.concatenate([first, *(self.logits(fold, epochs) for fold in folds[1:])])

    def logits(self, fold: Fold, epochs: int) -> Logits:
        """Logits of the validation rows of `fold` after training for `epochs`."""
        training = self.settings.training
        learned, judged = (torch.from_numpy(part) for part in fold)
        torch.manual_seed(training.seed)
        member = Network(self.rows[0].shape[1], self.cardinalities, self.settings.model, self.bins)
        numeric, categorical, churned = (part[learned] for part in self.rows)
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            callbacks=list(self.callbacks),
            max_epochs=epochs,
            gradient_clip_val=training.gradient_clip,
            deterministic=True,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        rows = numeric, categorical, churned
        learner = training.model_copy(update={"epochs": epochs})
        data = ChurnData(rows, None, training.batch_size, training.seed)
        trainer.fit(ChurnModule(member, learner), datamodule=data)
        return path_logits(member, self.rows, judged)


def _ladder(rows: int, training: ResolvedTraining) -> list[int]:
    if training.epochs is not None:
        return [training.epochs]
    first = max(1, round(FIRST_STEPS * training.batch_size / rows))
    return [min(first, 64) * 2**number for number in range(DOUBLINGS)]


def path_logits(path: nn.Module, rows: Rows, wanted: Tensor) -> Logits:
    """Logits of `path` for the rows at the positions `wanted`, float64."""
    path.eval()
    with torch.inference_mode():
        parts = [path(rows[0][part], rows[1][part]).double() for part in torch.split(wanted, JUDGED_AT_ONCE)]
    return np.asarray(torch.cat(parts).numpy())


def standard_error(gains: NDArray[np.float64], customers: NDArray[Any]) -> float:
    """Standard error of the mean of `gains` [B], clustered by customer (Liang and Zeger, 1986)."""
    of_row, known = pd.factorize(customers)
    sums = np.bincount(of_row, gains - gains.mean(), minlength=len(known))
    return float(np.sqrt((sums**2).sum()) / len(gains))

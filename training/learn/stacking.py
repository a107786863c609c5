"""Chooses the weight of each path of a table out of fold: linear path, boosted trees, network.

Folds are of customers: rows of one customer are similar, so a path trained on one of them would look too good
on the next.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.config import ModelConfig
from model.network import Network
from model.wide import Combination, Wide, stacked
from training.config import TrainingConfig
from training.learn.boosting import Fold, boosted_logits, fold_rows, growths
from training.learn.datamodule import ChurnData, Rows
from training.learn.module import ChurnModule
from training.learn.recipe import TABLE_STEPS
from training.trees.growth import Growth

FOLDS = 5
FOLDS_UP_TO = 20_000
"""Rows above which a single held-out fifth is enough for the choice."""
DOUBLINGS = 3
AT_ONCE = 16_384
PENALTIES = (1.0, 10.0, 100.0)
"""Penalties of the linear path; the larger ones are for tables with too few rows for their columns."""
ENOUGH = 1e-4
"""The search stops when a doubling of the epochs lowers the log-loss by less."""
LEAST_WEIGHT = 0.05
"""Least weight of a shape of trees in the stack."""
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


def choose_out_of_fold(
    rows: Rows,
    model: ModelConfig,
    training: TrainingConfig,
    bins: list[list[float]],
    cardinalities: tuple[int, ...],
    customers: NDArray[Any],
) -> StackingChoice:
    """Chooses by the log-loss of out-of-fold logits of one member; only `rows` are used.

    `customers` [B] holds the customer of each row. On few rows the deep path adds variance, so it must gain
    more than one standard error. A given `training.epochs` is not changed.
    """
    folds = list(customer_folds(rows[2].numpy(), customers, training.seed))
    judged = np.concatenate([judged for _, judged in folds])
    churned = rows[2].numpy()[judged].astype(np.int64)
    penalty, line = best_lines(rows, folds, churned, cardinalities)
    forest: list[Growth] = []
    paths = [np.concatenate([of_judged for _, of_judged in line])]
    encoded = [
        fold_rows(rows, fold, logits, training.seed, cardinalities)
        for fold, logits in zip(folds, line, strict=True)
    ]
    for growth in growths(len(rows[0])) if model.trees else ():
        logits, number = boosted_logits(encoded, growth, training.seed)
        forest.append(replace(growth, iterations=number))
        paths.append(logits)
    paths, forest = _without_light_shapes(paths, forest, churned)
    weights, losses = stacked(np.column_stack(paths), churned)
    epochs, of_deep = training.epochs or 1, 0.0
    deep = DeepPath(rows, model, training, bins, cardinalities)
    found = deep.tried(folds, churned, np.column_stack(paths) @ weights[:-1])
    if found is not None:
        found_epochs, logits = found
        with_deep, better = stacked(np.column_stack([*paths, logits]), churned)
        gain = losses - better
        if gain.mean() > standard_error(gain, customers[judged]):
            (*weights, of_deep, shift), epochs = with_deep, found_epochs
            weights = [*weights, shift]
    return _chosen(epochs, penalty, forest, weights, of_deep)


def _without_light_shapes(
    paths: list[Logits], forest: list[Growth], churned: NDArray[np.int64]
) -> tuple[list[Logits], list[Growth]]:
    """Removes shapes with a weight below LEAST_WEIGHT, since hundreds of trees cost the server time."""
    of_trees = stacked(np.column_stack(paths), churned)[0][1:-1]
    heavy = [place for place, weight in enumerate(of_trees) if weight >= LEAST_WEIGHT]
    return [paths[0], *(paths[place + 1] for place in heavy)], [forest[place] for place in heavy]


def _chosen(
    epochs: int, penalty: float, forest: Sequence[Growth], weights: Sequence[float], of_deep: float
) -> StackingChoice:
    of_line, *of_trees, shift = weights
    of_shape = list(zip(of_trees, forest, strict=True))
    # trees that start from the linear path include its logits
    of_line += sum(weight for weight, growth in of_shape if growth.from_line)
    total = sum(of_trees)
    shares = tuple((weight / total, growth) for weight, growth in of_shape if weight > 0)
    return StackingChoice(epochs, penalty, Combination(of_line, total, of_deep, shift), shares)


def standard_error(gains: NDArray[np.float64], customers: NDArray[Any]) -> float:
    """Standard error of the mean of `gains` [B], clustered by customer (Liang and Zeger, 1986)."""
    of_row, known = pd.factorize(customers)
    sums = np.bincount(of_row, gains - gains.mean(), minlength=len(known))
    return float(np.sqrt((sums**2).sum()) / len(gains))


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
        return log_loss(churned, np.concatenate([judged for _, judged in found[penalty]]))

    penalty = min(found, key=loss)
    return penalty, found[penalty]


def customer_folds(churned: NDArray[np.float32], customers: NDArray[Any], seed: int) -> Iterator[Fold]:
    """Folds with all rows of a customer in one fold, stratified by class."""
    draw = np.random.default_rng(seed)
    of_row, known = pd.factorize(customers, sort=True)
    # a customer with several rows counts as churned if one of them is
    ever = np.zeros(len(known), dtype=np.int64)
    np.maximum.at(ever, of_row, churned.astype(np.int64))
    fold = np.empty(len(known), dtype=np.int64)
    for label in (0, 1):
        members = draw.permutation(np.flatnonzero(ever == label))
        fold[members] = np.arange(len(members)) % FOLDS
    for number in range(FOLDS if len(churned) <= FOLDS_UP_TO else 1):
        taken = fold[of_row] == number
        yield np.flatnonzero(~taken), np.flatnonzero(taken)


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
    model: ModelConfig
    training: TrainingConfig
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
        for epochs in _ladder(len(self.rows[0]), self.training):
            logits = self.logits(folds[0], epochs)
            losses = stacked(np.column_stack([others, logits]), labels)[1]
            if best is not None and not losses.mean() < best[2].mean() - ENOUGH:
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
        assert self.training.batch_size is not None
        learned, judged = (torch.from_numpy(part) for part in fold)
        torch.manual_seed(self.training.seed)
        member = Network(self.rows[0].shape[1], self.cardinalities, self.model, self.bins)
        numeric, categorical, churned = (part[learned] for part in self.rows)
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            callbacks=list(self.callbacks),
            max_epochs=epochs,
            gradient_clip_val=self.training.gradient_clip,
            deterministic=True,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        rows = numeric, categorical, churned
        learner = self.training.model_copy(update={"epochs": epochs})
        data = ChurnData(rows, None, self.training.batch_size, self.training.seed)
        trainer.fit(ChurnModule(member, learner), datamodule=data)
        return path_logits(member, self.rows, judged)


def _ladder(rows: int, training: TrainingConfig) -> list[int]:
    if training.epochs is not None:
        return [training.epochs]
    assert training.batch_size is not None
    first = max(1, round(TABLE_STEPS * training.batch_size / rows))
    return [min(first, 64) * 2**number for number in range(DOUBLINGS)]


def path_logits(path: nn.Module, rows: Rows, wanted: Tensor) -> Logits:
    """Logits of `path` for the rows at the positions `wanted`, float64."""
    path.eval()
    with torch.inference_mode():
        parts = [path(rows[0][part], rows[1][part]).double() for part in torch.split(wanted, AT_ONCE)]
    return np.asarray(torch.cat(parts).numpy())


def log_loss(churned: NDArray[np.int64], logits: Logits) -> float:
    return float(np.mean(np.logaddexp(0.0, logits) - churned * logits))

"""Chooses the weight of each path of a log forward in time: linear path, network, boosted trees.

The paths are those of a table (training/learn/stacking.py), but every choice is validated on snapshots a
horizon after the training snapshots (training/learn/forward.py). Small logs are noisy, the rows of a customer
are not independent, and the next months differ from the validation months. So in doubt the simpler choice is
taken: fewer epochs, nearly equal weights, no trees. The weights sum to 1 and there is no shift: either would
import the base rate of the validation months (docs/adr/0013).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, minimize
from scipy.special import expit

from core.errors import TrainingError
from model.wide import Combination
from training.learn.boosting import held_out_logits
from training.learn.datamodule import Rows
from training.learn.encoded import EncodedRows, learn_preprocessing, tensors
from training.learn.forward import Fold, origins
from training.learn.metrics import logit_loss, logit_losses
from training.learn.paths import LEAST_GAIN, DeepPath, Logits, StackingChoice, best_line, standard_error
from training.learn.recipe import FIRST_STEPS
from training.learn.resolved import ResolvedTraining
from training.trees.growth import Growth

MOST_STEPS = 2_400
"""Optimiser steps of the network: the epochs double from about FIRST_STEPS to about MOST_STEPS."""
MOST_EPOCHS = 64
LARGE_LOG = 50_000
"""Training rows above which the default is the network alone, and two origins are used."""
CUSTOMERS = 5.0
"""Strength of the shrinkage of the weights to equal ones, as a number of customers."""
CERTAIN = 2.0
"""Standard errors by which a path has to improve the simpler combination to join it."""
WORTH = 0.01
"""Share of the log-loss that it also has to gain on many rows, where any gain is significant."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ForwardResult:
    """The choice for a log, and its logits and labels [B] on the validation rows."""

    chosen: StackingChoice
    logits: Logits
    churned: NDArray[np.int64]

    @property
    def log_loss(self) -> float:
        """Mean log-loss of the validation rows, in nats."""
        return logit_loss(self.churned, self.logits)


def choose_forward(
    encoded: EncodedRows,
    callbacks: tuple[pl.Callback, ...] = (),
    origin_judged: Callable[[float], None] = lambda log_loss: None,
) -> ForwardResult | None:
    """Chooses penalty, epochs, trees and weights for a log; a given `training.epochs` stays.

    Only the training rows are used. Each origin has the columns of `encoded` and fits its own parameters.
    Returns None if no snapshot is a horizon after another one. `callbacks` are those of the network's
    trainers; `origin_judged` is called with the network's log-loss at each origin.
    Raises TrainingError if the network diverges.
    """
    train, settings, sizes = encoded.frame, encoded.settings, encoded.inputs.cardinalities
    training, is_large = settings.training, len(train) > LARGE_LOG
    churned = train["churned"].to_numpy(dtype=np.int64)
    folds = origins(train["event_timestamp"], churned, settings.spec.horizon, 2 if is_large else 3)
    if not folds:
        return None
    rows, places = _laid_out(encoded, folds)
    customers = np.concatenate([train["user_id"].to_numpy()[judged] for _, judged in folds])
    labels = np.concatenate([churned[judged] for _, judged in folds])
    search = _Search(rows, places, labels, customers, sizes, training.seed, origin_judged)
    deep = DeepPath(rows, settings, encoded.bins, sizes, callbacks)
    epochs, of_deep = search.epochs(deep, ladder(len(train), training))
    if not settings.model.wide:
        return ForwardResult(StackingChoice(epochs, 1.0, Combination(deep=1.0)), of_deep, labels)
    penalty, line = best_line(rows, places, labels, sizes)
    forest, of_trees = search.trees(len(train)) if settings.model.trees else ((), None)
    weights, logits = search.weights(line, of_deep, of_trees, alone=is_large)
    return ForwardResult(
        StackingChoice(epochs, penalty, weights, forest if weights.trees else ()), logits, labels
    )


def short_log(rows: int, training: ResolvedTraining) -> StackingChoice:
    """For a log too short for validation: the mean of a strongly regularised linear path and a network
    trained for few steps."""
    epochs = training.epochs or ladder(rows, training)[:2][-1]
    return StackingChoice(epochs, 10.0, Combination(line=0.5, deep=0.5))


def ladder(rows: int, training: ResolvedTraining) -> list[int]:
    """Numbers of epochs to try, ascending; only `training.epochs` if it is given."""
    if training.epochs is not None:
        return [training.epochs]
    in_epoch = -(-rows // training.batch_size)
    tried, steps = [], FIRST_STEPS
    while steps <= MOST_STEPS:
        tried.append(min(max(round(steps / in_epoch), 1), MOST_EPOCHS))
        steps *= 2
    return sorted(set(tried))


def shrunk_weights(paths: Floats, churned: NDArray[np.int64], customers: int) -> list[float]:
    """P weights for logits [B, P] that minimise log-loss plus a penalty; they sum to 1, none is negative.

    The penalty is CUSTOMERS / `customers` times the squared distance to equal weights, so with few customers
    the weights are nearly equal.
    """
    count = paths.shape[1]
    equal, pull = np.full(count, 1 / count), CUSTOMERS / customers

    def loss(weights: Floats) -> tuple[float, Floats]:
        mixed, off = paths @ weights, weights - equal
        value = logit_loss(churned, mixed) + float(pull * off @ off)
        return value, paths.T @ (expit(mixed) - churned) / len(churned) + 2 * pull * off

    one = LinearConstraint(np.ones((1, count)), 1.0, 1.0)
    found = minimize(loss, equal, jac=True, method="SLSQP", bounds=[(0.0, 1.0)] * count, constraints=one)
    weights = np.clip(found.x, 0.0, 1.0)
    return [float(weight) for weight in weights / weights.sum()]


@dataclass(frozen=True)
class _Search:
    rows: Rows
    folds: list[Fold]
    churned: NDArray[np.int64]
    customers: NDArray[Any]
    """Of the validation rows, in the order of the folds, like `churned`."""
    sizes: tuple[int, ...]
    """Number of categories of each column."""
    seed: int
    origin_judged: Callable[[float], None]

    def epochs(self, deep: DeepPath, tried: Sequence[int]) -> tuple[int, Logits]:
        """The best number of epochs and its logits; the search ends when a doubling gains too little."""
        best: tuple[int, Logits] | None = None
        for number in tried:
            logits = np.concatenate([self._of_network(deep, fold, number) for fold in self.folds])
            if best is not None and not self._loss(logits) < self._loss(best[1]) - LEAST_GAIN:
                break
            best = number, logits
        assert best is not None
        return best

    def _of_network(self, deep: DeepPath, fold: Fold, epochs: int) -> Logits:
        logits = deep.logits(fold, epochs)
        if not np.isfinite(logits).all():
            self.origin_judged(float("nan"))
            raise TrainingError("the network diverged: lower training.learning_rate")
        self.origin_judged(logit_loss(self.rows[2].numpy()[fold[1]].astype(np.int64), logits))
        return logits

    def trees(self, rows: int) -> tuple[tuple[tuple[float, Growth], ...], Logits]:
        """The shape with the least log-loss, and its logits."""
        tried = []
        for growth in growths(rows):
            logits, number = held_out_logits(self.rows, self.folds, growth, self.seed, self.sizes)
            found = ((1.0, replace(growth, iterations=number)),)
            tried.append((logit_loss(self.churned, logits), found, logits))
        _, forest, logits = min(tried, key=lambda one: one[0])
        return forest, logits

    def weights(
        self, line: Logits, deep: Logits, trees: Logits | None, alone: bool
    ) -> tuple[Combination, Logits]:
        """The simplest combination that no more complex one beats significantly, and its logits.

        It begins with the network alone on many rows, else with network and linear path. Trees come last:
        they make the program slower and cannot extrapolate beyond the range of the training rows.
        """
        best = Combination(deep=1.0), deep
        if not alone:
            best = self._mixed(line=line, deep=deep)
        tried = [self._mixed(line=line, deep=deep)] if alone else []
        if trees is not None:
            tried.append(self._mixed(line=line, deep=deep, trees=trees))
        least = WORTH if alone else 0.0
        for other in tried:
            worth = self._loss(other[1]) < (1 - least) * self._loss(best[1])
            if worth and self._gains(best[1], other[1], CERTAIN):
                best = other
        return best

    def _mixed(self, **paths: Logits) -> tuple[Combination, Logits]:
        logits = np.column_stack(list(paths.values()))
        weights = shrunk_weights(logits, self.churned, len(np.unique(self.customers)))
        return Combination(**dict(zip(paths, weights, strict=True))), logits @ np.array(weights)

    def _loss(self, logits: Logits) -> float:
        return logit_loss(self.churned, logits)

    def _gains(self, before: Logits, after: Logits, errors: float) -> bool:
        gain = logit_losses(self.churned, before) - logit_losses(self.churned, after)
        return bool(gain.mean() > errors * standard_error(gain, self.customers))


def growths(rows: int) -> tuple[Growth, ...]:
    """The shapes of trees to try: small, since thresholds of a log's months do not transfer to the next."""
    rate = 0.1 if rows > LARGE_LOG else 0.05
    return Growth(4, rate), Growth(10, rate)


def _laid_out(encoded: EncodedRows, folds: Sequence[Fold]) -> tuple[Rows, list[Fold]]:
    """The rows of all origins, concatenated, and the folds as positions in them."""
    train, inputs, final = encoded.frame, encoded.inputs, encoded.preprocessing
    parts, places, start = [], [], 0
    for learned, judged in folds:
        of_origin = learn_preprocessing(train.iloc[learned], inputs, encoded.settings)
        # same columns as in the final program: an indicator of gaps that occur only later is 0 here
        of_origin.flagged = final.flagged
        if final.process is None or of_origin.process is None:
            of_origin.process = final.process
        parts.append(tensors(train.iloc[np.concatenate([learned, judged])], inputs, of_origin))
        middle, end = start + len(learned), start + len(learned) + len(judged)
        places.append((np.arange(start, middle), np.arange(middle, end)))
        start = end
    numeric, codes, churned = (torch.cat(column) for column in zip(*parts, strict=True))
    return (numeric, codes, churned), places

"""Chooses the weight of each path of a table out of fold: linear path, boosted trees, network.

Folds are of customers: rows of one customer are similar, so a path trained on one of them would look too good
on the next.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model.wide import Combination, stacked
from training.learn.boosting import Fold, boosted_logits, fold_rows, growths
from training.learn.encoded import EncodedRows
from training.learn.paths import DeepPath, Logits, StackingChoice, best_lines, standard_error
from training.trees.growth import Growth

FOLDS = 5
FOLDS_UP_TO = 20_000
"""Rows above which a single held-out fifth is enough for the choice."""
LEAST_WEIGHT = 0.05
"""Least weight of a shape of trees in the stack."""


def choose_out_of_fold(encoded: EncodedRows) -> StackingChoice:
    """Chooses by the log-loss of out-of-fold logits of one member; only the training rows are used.

    On few rows the deep path adds variance, so it must gain more than one standard error. A given
    `training.epochs` is not changed.
    """
    rows, settings, cardinalities = encoded.tensors, encoded.settings, encoded.inputs.cardinalities
    training, customers = settings.training, encoded.frame["user_id"].to_numpy()
    folds = list(customer_folds(rows[2].numpy(), customers, training.seed))
    judged = np.concatenate([judged for _, judged in folds])
    churned = rows[2].numpy()[judged].astype(np.int64)
    penalty, line = best_lines(rows, folds, churned, cardinalities)
    forest: list[Growth] = []
    paths = [np.concatenate([of_judged for _, of_judged in line])]
    of_folds = [
        fold_rows(rows, fold, logits, training.seed, cardinalities)
        for fold, logits in zip(folds, line, strict=True)
    ]
    for growth in growths(len(rows[0])) if settings.model.trees else ():
        logits, number = boosted_logits(of_folds, growth, training.seed)
        forest.append(replace(growth, iterations=number))
        paths.append(logits)
    paths, forest = _without_light_shapes(paths, forest, churned)
    weights, losses = stacked(np.column_stack(paths), churned)
    epochs, of_deep = training.epochs or 1, 0.0
    deep = DeepPath(rows, settings, encoded.bins, cardinalities)
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

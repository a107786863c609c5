"""Boosted trees in several shapes: the candidates for a table, and how they are grown on folds and all rows.

Different shapes make different errors, so a stack of them is better than one. Trees of few leaves are nearly
additive. Larger trees find interactions of columns. Trees with random thresholds (extremely randomised trees:
Geurts and others, 2006) overfit least with many noisy columns. Symmetric trees
(training/trees/symmetric.py) are the smoothest.
"""

from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from model.target_rates import encode, encode_out_of_fold, rates
from model.trees import Trees
from training.learn.datamodule import Rows
from training.trees import leafwise, symmetric
from training.trees.growth import FoldRows, Growth, Logits, TrainingRows

LARGE_TABLE = 50_000
"""Number of rows from which larger trees are useful, and smaller learning rates would take too long."""

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Positions of the training rows and of the validation rows."""


def growths(rows: int) -> tuple[Growth, ...]:
    """The shapes to try on `rows` rows; symmetric ones start from zero and from the logistic regression."""
    if rows >= LARGE_TABLE:
        leafwise_shapes = Growth(8, 0.1), Growth(63, 0.05), Growth(63, 0.1, randomised=True)
        symmetric_shapes: tuple[Growth, ...] = (Growth(64, 0.15, symmetric=True),)
    else:
        leafwise_shapes = Growth(4, 0.04), Growth(16, 0.03), Growth(31, 0.05, randomised=True)
        symmetric_shapes = Growth(16, 0.08, symmetric=True), Growth(64, 0.06, symmetric=True)
    from_line = (replace(shape, from_line=True) for shape in symmetric_shapes)
    return *leafwise_shapes, *symmetric_shapes, *from_line


def fold_rows(
    rows: Rows, fold: Fold, line: tuple[Logits, Logits], seed: int, sizes: Sequence[int]
) -> FoldRows:
    """The rows of `fold`, categories replaced by churn rates of its training rows.

    `line` holds the logits of the logistic regression for the training and the validation rows.
    """
    numeric, codes, churned = (part.numpy() for part in rows)
    learned, judged = fold
    found = rates(codes[learned], churned[learned], sizes)
    out_of_fold = encode_out_of_fold(codes[learned], churned[learned], sizes, seed)
    return FoldRows(
        np.hstack([numeric[learned], out_of_fold]),
        churned[learned],
        line[0],
        np.hstack([numeric[judged], encode(found, codes[judged])]),
        churned[judged],
        line[1],
    )


def held_out_logits(
    rows: Rows, folds: Sequence[Fold], growth: Growth, seed: int, sizes: Sequence[int]
) -> tuple[Logits, int]:
    """`boosted_logits` for a shape that does not start from the logistic regression."""
    nothing = np.zeros(len(rows[2]))
    lines = [(nothing[learned], nothing[judged]) for learned, judged in folds]
    encoded = [fold_rows(rows, fold, line, seed, sizes) for fold, line in zip(folds, lines, strict=True)]
    return boosted_logits(encoded, growth, seed)


def boosted_logits(folds: Sequence[FoldRows], growth: Growth, seed: int) -> tuple[Logits, int]:
    """Logits of the validation rows of all folds, in fold order, and the number of trees of each model.

    The logits include those of the logistic regression if the trees start from it.
    """
    trees, number = _library(growth).fold_logits(folds, growth, seed)
    parts = [
        of_fold + fold.judged_line if growth.from_line else of_fold
        for of_fold, fold in zip(trees, folds, strict=True)
    ]
    return np.concatenate(parts), number


def grow_forest(
    trees: Trees,
    rows: Rows,
    forest: Sequence[tuple[float, Growth]],
    seed: int,
    sizes: Sequence[int],
    line: Logits | None = None,
) -> None:
    """Fills `trees` from all rows: each shape of `forest` with its share of the logit.

    `line` holds the logits of the logistic regression, for shapes that start from it; `trees` excludes them.
    """
    if not forest:
        return
    numeric, codes, churned = (part.numpy() for part in rows)
    inputs = np.hstack([numeric, encode_out_of_fold(codes, churned, sizes, seed)])
    grown = []
    for share, growth in forest:
        assert line is not None or not growth.from_line
        teaching = TrainingRows(inputs, churned, line if growth.from_line else None)
        grown += [tree.scaled(share) for tree in _library(growth).grow_trees(teaching, growth, seed)]
    trees.load(grown, rates(codes, churned, sizes))


def _library(growth: Growth) -> ModuleType:
    return symmetric if growth.symmetric else leafwise

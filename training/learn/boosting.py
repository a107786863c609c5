"""Boosted trees in several shapes: which are tried on a table, and how all folds and all rows grow them.

Shapes that differ err differently, and the stack takes from each what it adds: trees of few leaves are nearly
additive, larger ones find what columns mean together, those whose thresholds are drawn at random (extremely
randomised trees: Geurts and others, 2006) overfit least where columns are many and noisy, and symmetric ones
(training/trees/symmetric.py) are smoothest.
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
from training.trees.growth import FoldRows, Growth, Logits, Teaching

LARGE = 50_000
"""Rows that can teach larger trees, and for which smaller steps would take too long."""

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Positions of the rows to learn from and of the rows to judge."""


def growths(rows: int) -> tuple[Growth, ...]:
    """The shapes that are tried on so many rows; symmetric ones begin with nothing and with the line."""
    if rows >= LARGE:
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
    """Categories become churn rates of the rows `fold` learns from; `line` holds logits of both parts."""
    numeric, codes, churned = (part.numpy() for part in rows)
    learned, judged = fold
    found = rates(codes[learned], churned[learned], sizes)
    own = encode_out_of_fold(codes[learned], churned[learned], sizes, seed)
    return FoldRows(
        np.hstack([numeric[learned], own]),
        churned[learned],
        line[0],
        np.hstack([numeric[judged], encode(found, codes[judged])]),
        churned[judged],
        line[1],
    )


def held_out(
    rows: Rows, folds: Sequence[Fold], growth: Growth, seed: int, sizes: Sequence[int]
) -> tuple[Logits, int]:
    """`boosted` for one shape that does not begin with the line."""
    nothing = np.zeros(len(rows[2]))
    lines = [(nothing[learned], nothing[judged]) for learned, judged in folds]
    encoded = [fold_rows(rows, fold, line, seed, sizes) for fold, line in zip(folds, lines, strict=True)]
    return boosted(encoded, growth, seed)


def boosted(folds: Sequence[FoldRows], growth: Growth, seed: int) -> tuple[Logits, int]:
    """Logits of the judged rows of all folds, in their order, and the number of trees behind each.

    They hold the line's where the trees begin with it.
    """
    trees, number = _library(growth).judged(folds, growth, seed)
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
    """Fill `trees` from all rows: each shape of `forest` with its share of the logit.

    `line` is what the regression says of the rows, for shapes that begin with it; it is no part of `trees`.
    """
    if not forest:
        return
    numeric, codes, churned = (part.numpy() for part in rows)
    inputs = np.hstack([numeric, encode_out_of_fold(codes, churned, sizes, seed)])
    grown = []
    for share, growth in forest:
        assert line is not None or not growth.from_line
        teaching = Teaching(inputs, churned, line if growth.from_line else None)
        grown += [tree.scaled(share) for tree in _library(growth).grown(teaching, growth, seed)]
    trees.load(grown, rates(codes, churned, sizes))


def _library(growth: Growth) -> ModuleType:
    return symmetric if growth.symmetric else leafwise

"""Boosted trees by LightGBM, in several shapes: how each is grown, and how many trees it is given.

Shapes that differ err differently, and the stack takes from each what it adds: trees of few leaves are nearly
additive, larger ones find what columns mean together, and those whose thresholds are drawn by lot (extremely
randomised trees: Geurts and others, 2006) overfit least where columns are many and noisy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.target_rates import looked_up, out_of_part, rates
from model.trees import LEVELS, Trees
from training.datamodule import Rows

if TYPE_CHECKING:
    from lightgbm import Booster

LARGE = 50_000
"""Rows that can teach larger trees, and for which smaller steps would take too long."""
MOST_TREES = 2000
PATIENCE = 50
"""Trees in a row that do not lower the mean loss of the folds."""

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Positions of the rows to learn from and of the rows to judge."""
Logits = NDArray[np.float64]


@dataclass(frozen=True)
class Growth:
    """One shape of trees."""

    leaves: int
    rate: float
    randomised: bool = False
    """One threshold is drawn by lot for each column, instead of the best of all."""
    from_line: bool = False
    """They begin with the logits of the logistic regression and learn what it leaves over."""
    iterations: int = MOST_TREES

    @property
    def name(self) -> str:
        marks = "_randomised" * self.randomised + "_from_line" * self.from_line
        return f"{self.leaves}_leaves{marks}"


def growths(rows: int) -> tuple[Growth, ...]:
    """The shapes that are tried on so many rows."""
    small = Growth(4, 0.04), Growth(16, 0.03), Growth(31, 0.05, randomised=True)
    large = Growth(8, 0.1), Growth(63, 0.05), Growth(63, 0.1, randomised=True)
    shapes = large if rows >= LARGE else small
    return *shapes, *(replace(shape, from_line=True) for shape in shapes)


@dataclass(frozen=True)
class FoldRows:
    """Rows [B, inputs] of one fold as the trees read them; `line` is what the regression says of them."""

    learned: NDArray[np.float32]
    learned_churned: NDArray[np.float32]
    learned_line: Logits
    judged: NDArray[np.float32]
    judged_churned: NDArray[np.float32]
    judged_line: Logits


def fold_rows(
    rows: Rows, fold: Fold, line: tuple[Logits, Logits], seed: int, sizes: Sequence[int]
) -> FoldRows:
    """Categories become churn rates of the rows `fold` learns from; `line` holds logits of both parts."""
    numeric, codes, churned = (part.numpy() for part in rows)
    learned, judged = fold
    found = rates(codes[learned], churned[learned], sizes)
    own = out_of_part(codes[learned], churned[learned], sizes, seed)
    return FoldRows(
        np.hstack([numeric[learned], own]),
        churned[learned],
        line[0],
        np.hstack([numeric[judged], looked_up(found, codes[judged])]),
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

    They hold the line's where the trees begin with it. The number is where the mean loss of all folds is
    least, so that no fold is judged by a number that was chosen for it alone.
    """
    boosters = [_booster(fold, growth, seed) for fold in folds]
    number = _rounds(boosters, growth.iterations, [len(fold.judged) for fold in folds])
    parts = []
    for booster, fold in zip(boosters, folds, strict=True):
        trees = np.asarray(booster.predict(fold.judged, raw_score=True, num_iteration=number))
        parts.append(trees + fold.judged_line if growth.from_line else trees)
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
    import lightgbm

    if not forest:
        return
    numeric, codes, churned = (part.numpy() for part in rows)
    teach = np.hstack([numeric, out_of_part(codes, churned, sizes, seed)])
    boosters = []
    for share, growth in forest:
        settings = _settings(growth, seed)
        assert line is not None or not growth.from_line
        start = line if growth.from_line else None
        data = lightgbm.Dataset(teach, churned, init_score=start, params=settings)
        booster = lightgbm.train(settings, data, growth.iterations)
        boosters.append((share, booster.model_to_string()))
    trees.take(boosters, rates(codes, churned, sizes))


def _booster(fold: FoldRows, growth: Growth, seed: int) -> "Booster":
    """Without a tree yet; its validation rows are those that the fold judges."""
    import lightgbm

    settings = _settings(growth, seed)
    start, judged_start = (fold.learned_line, fold.judged_line) if growth.from_line else (None, None)
    data = lightgbm.Dataset(fold.learned, fold.learned_churned, init_score=start, params=settings)
    booster = lightgbm.Booster(settings, data)
    judged = data.create_valid(fold.judged, fold.judged_churned, init_score=judged_start)
    return booster.add_valid(judged, "judged")


def _rounds(boosters: Sequence["Booster"], most: int, rows: Sequence[int]) -> int:
    """Grow all by a tree at a time until their mean loss has not fallen for PATIENCE trees."""
    least, best = np.inf, 1
    for number in range(1, most + 1):
        for booster in boosters:
            booster.update()
        loss = float(np.average([booster.eval_valid()[0][2] for booster in boosters], weights=rows))
        if loss < least:
            least, best = loss, number
        if number - best >= PATIENCE:
            break
    return best


def _settings(growth: Growth, seed: int) -> dict[str, Any]:
    return {
        "objective": "binary",
        "metric": "binary_logloss",
        "learning_rate": growth.rate,
        "num_leaves": growth.leaves,
        "max_depth": LEVELS,
        "extra_trees": growth.randomised,
        "feature_fraction": 0.8 if growth.randomised else 0.5,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "min_data_in_leaf": 20,
        "seed": seed,
        # the same bits from the same rows, for one number of threads
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": torch.get_num_threads(),
        "verbosity": -1,
    }

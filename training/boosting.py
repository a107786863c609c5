"""Boosted trees by LightGBM, in several shapes: how each is grown, and how many trees it is given.

Shapes that differ err differently, and the stack takes from each what it adds: trees of few leaves are nearly
additive, larger ones find what columns mean together, and those whose thresholds are drawn by lot (extremely
randomised trees: Geurts and others, 2006) overfit least where columns are many and noisy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
    """One shape of trees. `randomised`: one threshold drawn by lot for each column instead of the best."""

    leaves: int
    rate: float
    randomised: bool = False
    iterations: int = MOST_TREES

    @property
    def name(self) -> str:
        return f"{self.leaves}_leaves" + ("_randomised" if self.randomised else "")


def growths(rows: int) -> tuple[Growth, ...]:
    """The shapes that are tried on so many rows."""
    if rows >= LARGE:
        return Growth(8, 0.1), Growth(63, 0.05), Growth(63, 0.1, randomised=True)
    return Growth(4, 0.04), Growth(16, 0.03), Growth(31, 0.05, randomised=True)


def held_out(
    rows: Rows, folds: Sequence[Fold], growth: Growth, seed: int, sizes: Sequence[int]
) -> tuple[Logits, int]:
    """Logits of the judged rows of all folds, in their order, and the number of trees behind each.

    The number is where the mean loss of all folds is least, so that no fold is judged by a number that was
    chosen for it alone.
    """
    import lightgbm

    encoded = [_encoded(rows, *fold, seed, sizes) for fold in folds]
    churned = rows[2].numpy()
    boosters = []
    for (learned, judged), (teach, test) in zip(folds, encoded, strict=True):
        data = lightgbm.Dataset(teach, churned[learned], params=_settings(growth, seed))
        booster = lightgbm.Booster(_settings(growth, seed), data)
        booster.add_valid(data.create_valid(test, churned[judged]), "judged")
        boosters.append(booster)
    number = _rounds(boosters, growth.iterations, np.array([len(judged) for _, judged in folds]))
    parts = [
        np.asarray(booster.predict(test, raw_score=True, num_iteration=number), dtype=np.float64)
        for booster, (_, test) in zip(boosters, encoded, strict=True)
    ]
    return np.concatenate(parts), number


def grow_forest(
    trees: Trees, rows: Rows, forest: Sequence[tuple[float, Growth]], seed: int, sizes: Sequence[int]
) -> None:
    """Fill `trees` from all rows: each shape of `forest` with its share of the logit."""
    import lightgbm

    if not forest:
        return
    numeric, codes, churned = (part.numpy() for part in rows)
    teach = np.hstack([numeric, out_of_part(codes, churned, sizes, seed)])
    boosters = []
    for share, growth in forest:
        data = lightgbm.Dataset(teach, churned, params=_settings(growth, seed))
        booster = lightgbm.train(_settings(growth, seed), data, growth.iterations)
        boosters.append((share, booster.model_to_string()))
    trees.take(boosters, rates(codes, churned, sizes))


def _encoded(
    rows: Rows, learned: NDArray[np.int64], judged: NDArray[np.int64], seed: int, sizes: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    numeric, codes, churned = (part.numpy() for part in rows)
    found = rates(codes[learned], churned[learned], sizes)
    teach = np.hstack([numeric[learned], out_of_part(codes[learned], churned[learned], sizes, seed)])
    return teach, np.hstack([numeric[judged], looked_up(found, codes[judged])])


def _rounds(boosters: Sequence["Booster"], most: int, rows: NDArray[np.int64]) -> int:
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

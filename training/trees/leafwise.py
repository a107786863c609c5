"""Trees that grow at the leaf that gains most, by LightGBM."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from model.tree_formats import Tree, from_lightgbm
from model.trees import MAX_DEPTH
from training.trees.growth import PATIENCE, FoldRows, Growth, Logits, Teaching

if TYPE_CHECKING:
    from lightgbm import Booster, Dataset


def judged(folds: Sequence[FoldRows], growth: Growth, seed: int) -> tuple[list[Logits], int]:
    """Raw predictions of the judged rows of each fold, and the number of trees behind all of them.

    The number is where the mean log-loss of all folds is least, so that no fold is judged by a number that
    was chosen for it alone.
    """
    boosters = [_booster(fold, growth, seed) for fold in folds]
    number = _rounds(boosters, growth.iterations, [len(fold.judged) for fold in folds])
    return [
        np.asarray(booster.predict(fold.judged, raw_score=True, num_iteration=number))
        for booster, fold in zip(boosters, folds, strict=True)
    ], number


def grown(rows: Teaching, growth: Growth, seed: int) -> list[Tree]:
    """`growth.iterations` trees that have learned from all `rows`; their start is no part of them."""
    import lightgbm

    settings = _settings(growth, seed)
    return from_lightgbm(
        lightgbm.train(settings, _dataset(rows, settings), growth.iterations).model_to_string()
    )


def _booster(fold: FoldRows, growth: Growth, seed: int) -> "Booster":
    """Without a tree yet; its validation rows are those that the fold judges."""
    import lightgbm

    settings = _settings(growth, seed)
    learned, judges = fold.parts(growth)
    data = _dataset(learned, settings)
    booster = lightgbm.Booster(settings, data)
    valid = data.create_valid(judges.inputs, judges.churned, init_score=judges.start)
    return booster.add_valid(valid, "judged")


def _dataset(rows: Teaching, settings: dict[str, Any]) -> "Dataset":
    import lightgbm

    return lightgbm.Dataset(rows.inputs, rows.churned, init_score=rows.start, params=settings)


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
        "max_depth": MAX_DEPTH,
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

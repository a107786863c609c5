"""Trees grown leaf-wise (the leaf with the largest gain is split next), by LightGBM."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from model.tree_formats import Tree, from_lightgbm
from model.trees import MAX_DEPTH
from training.trees.growth import PATIENCE, FoldRows, Growth, Logits, TrainingRows

if TYPE_CHECKING:
    from lightgbm import Booster, Dataset


def fold_logits(folds: Sequence[FoldRows], growth: Growth, seed: int) -> tuple[list[Logits], int]:
    """Logits of the validation rows of each fold, and the number of trees, which is the same for all folds.

    It is the number with the least mean log-loss over all folds, so it is not chosen for one fold alone.
    """
    boosters = [_booster(fold, growth, seed) for fold in folds]
    number = _rounds(boosters, growth.iterations, [len(fold.judged) for fold in folds])
    return [
        np.asarray(booster.predict(fold.judged, raw_score=True, num_iteration=number))
        for booster, fold in zip(boosters, folds, strict=True)
    ], number


def grow_trees(rows: TrainingRows, growth: Growth, seed: int) -> list[Tree]:
    """`growth.iterations` trees trained on all `rows`; the logits they start from are not included."""
    import lightgbm

    settings = _settings(growth, seed)
    return from_lightgbm(
        lightgbm.train(settings, _dataset(rows, settings), growth.iterations).model_to_string()
    )


def _booster(fold: FoldRows, growth: Growth, seed: int) -> "Booster":
    """A booster without trees, with the validation rows of the fold."""
    import lightgbm

    settings = _settings(growth, seed)
    learned, judges = fold.parts(growth)
    data = _dataset(learned, settings)
    booster = lightgbm.Booster(settings, data)
    valid = data.create_valid(judges.inputs, judges.churned, init_score=judges.start)
    return booster.add_valid(valid, "judged")


def _dataset(rows: TrainingRows, settings: dict[str, Any]) -> "Dataset":
    import lightgbm

    return lightgbm.Dataset(rows.inputs, rows.churned, init_score=rows.start, params=settings)


def _rounds(boosters: Sequence["Booster"], most: int, rows: Sequence[int]) -> int:
    """Adds trees to each booster until the mean loss has not fallen for PATIENCE trees; the best number."""
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
        # bit-for-bit reproducible for one number of threads
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": torch.get_num_threads(),
        "verbosity": -1,
    }

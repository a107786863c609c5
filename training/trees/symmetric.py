"""Symmetric trees, with one condition on each level, by CatBoost (Prokhorenkova and others, 2018).

A tree with so few conditions cannot isolate a single row, and each leaf holds many rows. Such trees make
other errors than leaf-wise ones, and smaller errors if the target is smooth or depends on a few conditions.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch

from model.tree_formats import Tree, from_catboost
from training.trees.growth import PATIENCE, FoldRows, Growth, Logits, TrainingRows

if TYPE_CHECKING:
    from catboost import CatBoostClassifier, Pool


def fold_logits(folds: Sequence[FoldRows], growth: Growth, seed: int) -> tuple[list[Logits], int]:
    """Logits of the validation rows of each fold, and the number of trees, which is the same for all folds.

    It is the number with the least mean log-loss over all folds, up to where the first fold stopped.
    """
    models, losses = [], []
    for fold in folds:
        learned, judges = fold.parts(growth)
        model = _model(growth, seed)
        model.fit(_pool(learned), eval_set=_pool(judges))
        models.append(model)
        losses.append(model.get_evals_result()["validation"]["Logloss"])
    reached = min(len(of_fold) for of_fold in losses)
    mean = np.average(
        [of_fold[:reached] for of_fold in losses], axis=0, weights=[len(fold.judged) for fold in folds]
    )
    number = int(mean.argmin()) + 1
    return [
        np.asarray(model.predict(fold.judged, prediction_type="RawFormulaVal", ntree_end=number))
        for model, fold in zip(models, folds, strict=True)
    ], number


def grow_trees(rows: TrainingRows, growth: Growth, seed: int) -> list[Tree]:
    """`growth.iterations` trees trained on all `rows`; the logits they start from are not included."""
    model = _model(growth, seed)
    model.fit(_pool(rows))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.json"
        model.save_model(str(file), format="json")
        return from_catboost(file.read_text())


def _pool(rows: TrainingRows) -> "Pool":
    from catboost import Pool

    return Pool(rows.inputs, rows.churned, baseline=rows.start)


def _model(growth: Growth, seed: int) -> "CatBoostClassifier":
    from catboost import CatBoostClassifier

    return CatBoostClassifier(
        iterations=growth.iterations,
        learning_rate=growth.rate,
        depth=growth.leaves.bit_length() - 1,
        # has an effect only in a fit with validation rows
        od_type="Iter",
        od_wait=PATIENCE,
        use_best_model=False,
        # the intercept belongs to the linear path
        boost_from_average=False,
        random_seed=seed,
        thread_count=torch.get_num_threads(),
        verbose=False,
        allow_writing_files=False,
    )

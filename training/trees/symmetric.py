"""Trees that ask one question on each level, by CatBoost (Prokhorenkova and others, 2018).

A tree of so few questions cannot follow a single row, and each of its leaves holds many: such trees err
otherwise than those that grow leaf by leaf, and less where the truth is smooth or made of a few conditions.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch

from model.tree_formats import Tree, from_catboost
from training.trees.growth import PATIENCE, FoldRows, Growth, Logits, Teaching

if TYPE_CHECKING:
    from catboost import CatBoostClassifier, Pool


def judged(folds: Sequence[FoldRows], growth: Growth, seed: int) -> tuple[list[Logits], int]:
    """Raw predictions of the judged rows of each fold, and the number of trees behind all of them.

    The number is where the mean log-loss of all folds is least, among those that every fold has reached.
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


def grown(rows: Teaching, growth: Growth, seed: int) -> list[Tree]:
    """`growth.iterations` trees that have learned from all `rows`; their start is no part of them."""
    model = _model(growth, seed)
    model.fit(_pool(rows))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.json"
        model.save_model(str(file), format="json")
        return from_catboost(file.read_text())


def _pool(rows: Teaching) -> "Pool":
    from catboost import Pool

    return Pool(rows.inputs, rows.churned, baseline=rows.start)


def _model(growth: Growth, seed: int) -> "CatBoostClassifier":
    from catboost import CatBoostClassifier

    return CatBoostClassifier(
        iterations=growth.iterations,
        learning_rate=growth.rate,
        depth=growth.leaves.bit_length() - 1,
        # only where a fit has rows that judge
        od_type="Iter",
        od_wait=PATIENCE,
        use_best_model=False,
        # a model that is one probability for all rows is the line's task
        boost_from_average=False,
        random_seed=seed,
        thread_count=torch.get_num_threads(),
        verbose=False,
        allow_writing_files=False,
    )

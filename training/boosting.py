"""How the trees are grown: slowly, with their size and number chosen out of fold."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.trees import LEVELS, Trees, apart, looked_up, rates
from training.datamodule import Rows

LARGE = 50_000
"""Rows that can teach larger trees, and for which smaller steps would take too long."""
MOST_TREES = 2000
PATIENCE = 30
"""Trees in a row that do not help on the held-out rows."""

Logits = NDArray[np.float64]


@dataclass(frozen=True)
class Growth:
    leaves: int
    iterations: int = MOST_TREES


def growths(rows: int) -> tuple[Growth, ...]:
    return tuple(Growth(leaves) for leaves in ((31, 127) if rows >= LARGE else (4, 10, 31)))


def held_out(
    rows: Rows,
    learned: NDArray[np.int64],
    judged: NDArray[np.int64],
    growth: Growth,
    seed: int,
    sizes: Sequence[int],
) -> tuple[Logits, int]:
    """Logits of the rows `judged` by as many trees as serve them best, and how many those are."""
    numeric, codes, churned = (part.numpy() for part in rows)
    found = rates(codes[learned], churned[learned], sizes)
    teach = np.hstack([numeric[learned], apart(codes[learned], churned[learned], sizes, seed)])
    test = np.hstack([numeric[judged], looked_up(found, codes[judged])])
    with _one_thread():
        boosting = _boosting(len(learned), growth, seed, stop=True)
        boosting.fit(teach, churned[learned], X_val=test, y_val=churned[judged])
        best = int(np.argmax(boosting.validation_score_))
        # the first score is that of no trees
        boosting._predictors = boosting._predictors[:best]
        return np.asarray(boosting._raw_predict(test)[:, 0], dtype=np.float64), best


def grow(trees: Trees, rows: Rows, growth: Growth, seed: int, sizes: Sequence[int]) -> None:
    """Fill `trees` from all rows."""
    numeric, codes, churned = (part.numpy() for part in rows)
    teach = np.hstack([numeric, apart(codes, churned, sizes, seed)])
    with _one_thread():
        boosting = _boosting(len(teach), growth, seed, stop=False).fit(teach, churned)
    trees.take(boosting, rates(codes, churned, sizes), growth.iterations)


def _boosting(rows: int, growth: Growth, seed: int, stop: bool) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        learning_rate=0.1 if rows >= LARGE else 0.05,
        max_iter=max(growth.iterations, 1),
        max_leaf_nodes=growth.leaves,
        max_depth=LEVELS,
        max_features=0.5,
        l2_regularization=1.0,
        early_stopping=stop,
        n_iter_no_change=PATIENCE,
        random_state=seed,
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """As many as torch has been given: sums in another order would grow other trees."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(torch.get_num_threads()):
        yield

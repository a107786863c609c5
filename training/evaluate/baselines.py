"""Standard models on the same rows. A network that does not beat them is not worth serving."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from model.preprocessing import Preprocessing
from training.learn.bg_nbd import BgNbd, purchase_summary
from training.learn.inputs import Inputs
from training.learn.split import Shape
from training.shape_rules import refuse_baselines

Scores = NDArray[np.float64]
Matrix = Any
"""A numpy array, or one of scipy's sparse matrices."""
DENSE_CATEGORIES = 256
"""Number of one-hot columns up to which a dense matrix is used, since it is faster there."""


@dataclass(frozen=True)
class Task:
    """The training rows, the rows to score, and what else a baseline may read."""

    train: pd.DataFrame
    test: pd.DataFrame
    inputs: Inputs
    horizon: timedelta
    records: Path
    """The folder of the transaction log, which only bg_nbd reads."""
    seed: int
    jobs: int = 2

    @property
    def churned(self) -> NDArray[np.int64]:
        """Labels of the training rows, [B]."""
        return self.train["churned"].to_numpy(dtype=np.int64)


def fit_baselines(
    names: Sequence[str], task: Task, shape: Shape, progress: Callable[[str], None] = lambda message: None
) -> tuple[dict[str, Scores], dict[str, float]]:
    """Test scores [B] of each baseline in `names`, and the seconds of each.

    Raises ConfigError for bg_nbd on a labelled table, which has no transaction log.
    """
    refuse_baselines(names, shape)
    scores: dict[str, Scores] = {}
    seconds: dict[str, float] = {}
    for name in names:
        progress(f"baseline {name}")
        start = perf_counter()
        scores[name] = BASELINES[name](task)
        seconds[name] = perf_counter() - start
    return scores, seconds


def base_rate(task: Task) -> Scores:
    """The churn rate of the training rows for every row."""
    return np.full(len(task.test), task.churned.mean())


def logistic_regression(task: Task) -> Scores:
    """Logistic regression on the network's preprocessing (log1p, standardised, gaps flagged) and one-hot
    categories."""
    from sklearn.linear_model import LogisticRegression

    preprocessing = Preprocessing.fit(task.inputs.encode(task.train)[0])

    def matrix(rows: pd.DataFrame) -> Matrix:
        numeric, codes = task.inputs.encode(rows)
        return _joined(preprocessing(torch.from_numpy(numeric)).numpy(), codes, task.inputs)

    return _scores(LogisticRegression(max_iter=1000), matrix, task)


def random_forest(task: Task) -> Scores:
    """200 trees of depth 10, the classic settings. A sparse matrix cannot hold gaps, so with many categories
    a missing number is replaced by the median and a flag."""
    from sklearn.ensemble import RandomForestClassifier

    median = _medians(task.inputs.encode(task.train)[0])
    sparse = sum(task.inputs.cardinalities) > DENSE_CATEGORIES

    def matrix(rows: pd.DataFrame) -> Matrix:
        numeric, codes = task.inputs.encode(rows)
        if sparse:
            gaps = np.isnan(numeric)
            numeric = np.hstack([np.where(gaps, median, numeric), gaps])
        return _joined(numeric, codes, task.inputs)

    forest = RandomForestClassifier(n_estimators=200, max_depth=10, n_jobs=task.jobs, random_state=task.seed)
    return _scores(forest, matrix, task)


def gradient_boosting(task: Task) -> Scores:
    """scikit-learn's histogram trees with default settings, which handle gaps and categories natively."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    # scikit-learn has 255 bins, so a larger vocabulary is treated as an ordered number
    few = [len(task.inputs.numeric) + c for c, n in enumerate(task.inputs.cardinalities) if n < 255]

    def matrix(rows: pd.DataFrame) -> NDArray[np.float64]:
        return np.hstack(task.inputs.encode(rows))

    boosting = HistGradientBoostingClassifier(categorical_features=few or None, random_state=task.seed)
    return _scores(boosting, matrix, task)


def bg_nbd(task: Task) -> Scores:
    """BG/NBD, fitted once to the log before the test window: a fit for each snapshot gave worse scores."""
    snapshots = sorted(task.test["event_timestamp"].unique())
    model = BgNbd.fit(*purchase_summary(task.records, snapshots[0]).to_numpy(dtype=np.float64).T)
    scores = np.empty(len(task.test))
    for snapshot in snapshots:
        at = (task.test["event_timestamp"] == snapshot).to_numpy()
        summary = purchase_summary(task.records, snapshot).loc[task.test["user_id"].to_numpy()[at]]
        frequency, recency, age = summary.to_numpy(dtype=np.float64).T
        scores[at] = model.churn(frequency, recency, age, task.horizon.days)
    return scores


BASELINES: dict[str, Callable[[Task], Scores]] = {
    "base_rate": base_rate,
    "logistic_regression": logistic_regression,
    "random_forest": random_forest,
    "gradient_boosting": gradient_boosting,
    "bg_nbd": bg_nbd,
}


def _scores(estimator: Any, matrix: Callable[[pd.DataFrame], Matrix], task: Task) -> Scores:
    estimator.fit(matrix(task.train), task.churned)
    if hasattr(estimator, "n_jobs"):
        # several threads add the votes in the order in which they finish, which changes the last bits
        estimator.set_params(n_jobs=1)
    return np.asarray(estimator.predict_proba(matrix(task.test))[:, 1], dtype=np.float64)


def _medians(numeric: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median of each column's known values; 0 if there are none."""
    known = [column[~np.isnan(column)] for column in numeric.T]
    return np.array([float(np.median(values)) if len(values) else 0.0 for values in known])


def _joined(numeric: NDArray[Any], codes: NDArray[np.int64], inputs: Inputs) -> Matrix:
    """Numbers and one-hot categories [B, N + sum of vocabularies]; sparse if the categories are many."""
    from scipy.sparse import csr_matrix, hstack

    categories = _one_hot(codes, inputs)
    if categories.shape[1] <= DENSE_CATEGORIES:
        return np.hstack([numeric, categories.toarray()])
    return hstack([csr_matrix(numeric), categories], format="csr")


def _one_hot(codes: NDArray[np.int64], inputs: Inputs) -> Any:
    """Sparse [B, sum of vocabularies], float32; a missing or unknown category is all zeros."""
    from scipy.sparse import csr_matrix

    known = codes > 0
    first = np.cumsum((0, *inputs.cardinalities))
    row, column = np.nonzero(known)
    places = codes[row, column] - 1 + first[column]
    ends = np.concatenate([[0], np.cumsum(known.sum(axis=1))])
    values = np.ones(len(places), dtype=np.float32)
    return csr_matrix((values, places, ends), shape=(len(codes), int(first[-1])))

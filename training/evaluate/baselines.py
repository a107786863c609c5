"""What anyone would train instead, on the same rows; a network that does not beat it is not worth serving."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from features.spec import FeaturesConfig
from model.preprocessing import Preprocessing
from training.learn.bg_nbd import BgNbd, purchase_summary
from training.learn.inputs import Inputs
from training.learn.split import Shape
from training.shape_rules import refuse_baselines

Scores = NDArray[np.float64]
Matrix = Any
"""A numpy array, or one of scipy's sparse matrices."""
DENSE_CATEGORIES = 256
"""Categories of all columns together, up to which their one-hot columns are a dense matrix: faster there."""


@dataclass(frozen=True)
class Task:
    """The rows to learn from, and those to score."""

    train: pd.DataFrame
    test: pd.DataFrame
    inputs: Inputs
    horizon: timedelta
    records: Path
    seed: int
    jobs: int = 2

    @property
    def churned(self) -> NDArray[np.int64]:
        return self.train["churned"].to_numpy(dtype=np.int64)


def fit_baselines(
    names: tuple[str, ...],
    train: pd.DataFrame,
    test: pd.DataFrame,
    spec: FeaturesConfig,
    shape: Shape,
    records: Path,
    seed: int = 0,
    progress: Callable[[str], None] = lambda message: None,
) -> tuple[dict[str, Scores], dict[str, float]]:
    """Test scores of each baseline in `names`, and the seconds each took.

    `records` is the transaction log, read by bg_nbd alone; a labelled table has none, so asking for it there
    raises ConfigError.
    """
    refuse_baselines(names, shape)
    task = Task(train, test, Inputs.learn(train, spec), spec.horizon, records, seed)
    scores: dict[str, Scores] = {}
    seconds: dict[str, float] = {}
    for name in names:
        progress(f"baseline {name}")
        start = perf_counter()
        scores[name] = BASELINES[name](task)
        seconds[name] = perf_counter() - start
    return scores, seconds


def base_rate(task: Task) -> Scores:
    return np.full(len(task.test), task.churned.mean())


def logistic_regression(task: Task) -> Scores:
    """On log1p, standardised, with gaps flagged: the network's own preprocessing; categories one-hot."""
    from sklearn.linear_model import LogisticRegression

    preprocessing = Preprocessing.fit(task.inputs.encode(task.train)[0])

    def matrix(rows: pd.DataFrame) -> Matrix:
        numeric, codes = task.inputs.encode(rows)
        return _joined(preprocessing(torch.from_numpy(numeric)).numpy(), codes, task.inputs)

    return _scores(LogisticRegression(max_iter=1000), matrix, task)


def random_forest(task: Task) -> Scores:
    """The classic recipe: 200 trees of depth 10. A sparse matrix has no gaps, so beside many categories a
    missing number is its median with a flag."""
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
    """Histogram trees as they come; gaps and categories are handled by the trees themselves."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    # a vocabulary above scikit-learn's 255 bins is read as an ordered code
    few = [len(task.inputs.numeric) + c for c, n in enumerate(task.inputs.cardinalities) if n < 255]

    def matrix(rows: pd.DataFrame) -> NDArray[np.float64]:
        return np.hstack(task.inputs.encode(rows))

    boosting = HistGradientBoostingClassifier(categorical_features=few or None, random_state=task.seed)
    return _scores(boosting, matrix, task)


def bg_nbd(task: Task) -> Scores:
    """Fitted once, on what had happened before the test window: refitting at each snapshot proved harmful."""
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
    return np.asarray(estimator.predict_proba(matrix(task.test))[:, 1], dtype=np.float64)


def _medians(numeric: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each column's known values; 0 where there are none."""
    known = [column[~np.isnan(column)] for column in numeric.T]
    return np.array([float(np.median(values)) if len(values) else 0.0 for values in known])


def _joined(numeric: NDArray[Any], codes: NDArray[np.int64], inputs: Inputs) -> Matrix:
    """Numbers and one-hot categories side by side; sparse where the categories are many."""
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

"""What a user would train instead, as it comes and with a search space of the usual width."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse

from model.preprocessing import Preprocessing

JOBS = 2


@dataclass(frozen=True)
class Rows:
    """Encoded rows to learn from and to judge."""

    numeric: NDArray[np.float64]
    codes: NDArray[np.int64]
    churned: NDArray[np.int64]
    judged_numeric: NDArray[np.float64]
    judged_codes: NDArray[np.int64]
    judged: NDArray[np.int64]
    cardinalities: tuple[int, ...]


def logistic_regression(rows: Rows, seed: int, **given: Any) -> NDArray[np.float64]:
    """On log1p, standardised, with gaps flagged and categories one-hot."""
    from sklearn.linear_model import LogisticRegression

    preprocessing = Preprocessing.fit(rows.numeric)

    def matrix(numeric: NDArray[np.float64], codes: NDArray[np.int64]) -> Any:
        # sparse: one column of 4,000 categories would be gigabytes
        numbers = sparse.csr_array(preprocessing(torch.from_numpy(numeric)).numpy())
        return sparse.hstack([numbers, *_one_hot(codes, rows)], "csr")

    model = LogisticRegression(max_iter=1000, **given).fit(matrix(rows.numeric, rows.codes), rows.churned)
    return np.asarray(model.predict_proba(matrix(rows.judged_numeric, rows.judged_codes))[:, 1])


def random_forest(rows: Rows, seed: int, **given: Any) -> NDArray[np.float64]:
    """The classic recipe: 200 trees of depth 10."""
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(
        **{"n_estimators": 200, "max_depth": 10, "n_jobs": JOBS, "random_state": seed} | given
    )

    def matrix(numeric: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[Any]:
        return np.hstack([numeric, *(part.toarray() for part in _one_hot(codes, rows))])

    model.fit(matrix(rows.numeric, rows.codes), rows.churned)
    return np.asarray(model.predict_proba(matrix(rows.judged_numeric, rows.judged_codes))[:, 1])


def lightgbm(rows: Rows, seed: int, **given: Any) -> NDArray[np.float64]:
    from lightgbm import LGBMClassifier

    learned, judged = _frames(rows)
    model = LGBMClassifier(random_state=seed, n_jobs=JOBS, verbose=-1, subsample_freq=1, **given).fit(
        learned, rows.churned
    )
    return np.asarray(model.predict_proba(judged)[:, 1])


def xgboost(rows: Rows, seed: int, **given: Any) -> NDArray[np.float64]:
    from xgboost import XGBClassifier

    learned, judged = _frames(rows)
    model = XGBClassifier(random_state=seed, n_jobs=JOBS, enable_categorical=True, **given)
    return np.asarray(model.fit(learned, rows.churned).predict_proba(judged)[:, 1])


def catboost(rows: Rows, seed: int, **given: Any) -> NDArray[np.float64]:
    from catboost import CatBoostClassifier

    learned, judged = _frames(rows, categories=False)
    model = CatBoostClassifier(
        random_seed=seed, thread_count=JOBS, verbose=False, allow_writing_files=False, **given
    )
    model.fit(learned, rows.churned, cat_features=[name for name in learned if name.startswith("c")])
    return np.asarray(model.predict_proba(judged)[:, 1])


def realmlp(rows: Rows, seed: int, **given: Any) -> NDArray[np.float64]:
    """RealMLP with its authors' defaults (Holzmüller and others, 2024); a gap is the column's median."""
    from pytabkit import RealMLP_TD_Classifier

    middle = np.nan_to_num(np.nanmedian(np.where(np.isfinite(rows.numeric), rows.numeric, np.nan), axis=0))
    learned, judged = (
        frame.fillna(dict(zip(frame.columns, middle, strict=False))) for frame in _frames(rows)
    )
    model = RealMLP_TD_Classifier(random_state=seed, device="cpu", n_threads=JOBS, **given)
    return np.asarray(model.fit(learned, rows.churned).predict_proba(judged)[:, 1])


RIVALS = {
    "logistic_regression": logistic_regression,
    "random_forest": random_forest,
    "lightgbm": lightgbm,
    "xgboost": xgboost,
    "catboost": catboost,
    "realmlp": realmlp,
}
SLOW = ("realmlp",)
"""Runs as it comes and with one seed: 188,560 rows take it a third of an hour."""


def fitted_scores(name: str, given: dict[str, Any], rows: Rows, seed: int) -> NDArray[np.float64]:
    return RIVALS[name](rows, seed, **given)


def suggested(name: str, trial: optuna.Trial) -> dict[str, Any]:
    if name == "logistic_regression":
        return {"C": trial.suggest_float("C", 1e-3, 1e2, log=True)}
    if name == "random_forest":
        return {
            "max_depth": trial.suggest_int("max_depth", 4, 16),
            "min_samples_leaf": trial.suggest_int("min_samples_leaf", 1, 50, log=True),
            "max_features": trial.suggest_float("max_features", 0.1, 0.8),
        }
    if name == "lightgbm":
        return {
            "n_estimators": trial.suggest_int("n_estimators", 50, 600, log=True),
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.2, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 4, 64, log=True),
            "min_child_samples": trial.suggest_int("min_child_samples", 5, 200, log=True),
            "subsample": trial.suggest_float("subsample", 0.5, 1.0),
            "colsample_bytree": trial.suggest_float("colsample_bytree", 0.4, 1.0),
            "reg_lambda": trial.suggest_float("reg_lambda", 1e-2, 30, log=True),
        }
    if name == "xgboost":
        return {
            "n_estimators": trial.suggest_int("n_estimators", 50, 600, log=True),
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.2, log=True),
            "max_depth": trial.suggest_int("max_depth", 2, 8),
            "min_child_weight": trial.suggest_float("min_child_weight", 1, 100, log=True),
            "subsample": trial.suggest_float("subsample", 0.5, 1.0),
            "colsample_bytree": trial.suggest_float("colsample_bytree", 0.4, 1.0),
            "reg_lambda": trial.suggest_float("reg_lambda", 1e-2, 30, log=True),
        }
    return {
        "iterations": trial.suggest_int("iterations", 100, 600, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.2, log=True),
        "depth": trial.suggest_int("depth", 3, 8),
        "l2_leaf_reg": trial.suggest_float("l2_leaf_reg", 1, 30, log=True),
    }


def _frames(rows: Rows, categories: bool = True) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Gaps and categories as the trees take them themselves."""

    def frame(numeric: NDArray[np.float64], codes: NDArray[np.int64]) -> pd.DataFrame:
        columns: dict[str, Any] = {f"n{i}": column for i, column in enumerate(numeric.T)}
        for i, (column, size) in enumerate(zip(codes.T, rows.cardinalities, strict=True)):
            columns[f"c{i}"] = pd.Categorical(column, categories=range(size + 1)) if categories else column
        return pd.DataFrame(columns)

    return frame(rows.numeric, rows.codes), frame(rows.judged_numeric, rows.judged_codes)


def _one_hot(codes: NDArray[np.int64], rows: Rows) -> list[Any]:
    """A sparse [B, vocabulary] of each category; a missing or unknown one is all zeros."""
    return [
        sparse.eye_array(n + 1, dtype=np.float32, format="csr")[codes[:, c]][:, 1:]
        for c, n in enumerate(rows.cardinalities)
    ]

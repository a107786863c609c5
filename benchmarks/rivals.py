"""The models that a user could train instead, with default settings and tuned.

Search spaces are those of Gorishniy and others (Revisiting Deep Learning Models for Tabular Data, 2021; TabM,
2025) and of the libraries' documentation, with learning rates of .02 to .3: ten trials are too few for five
orders of magnitude. The first trial is the library's own defaults. Boosted trees are stopped early on each
fold that chooses; the final fit grows the mean number of trees that served those folds best.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.contests import Contest, Fold
from model.preprocessing import Preprocessing
from training.learn.inputs import Inputs
from training.learn.metrics import log_loss

JOBS = 1
"""The benchmark runs two models at a time on two cores."""
MOST_TREES = 2000
PATIENCE = 50
"""Trees in a row that do not help on the rows that choose."""
ONE_HOT_UP_TO = 50
"""Values of a category; above, a forest reads scikit-learn's cross-fitted target encoding."""
STARTUP_TRIALS = 4

Scores = NDArray[np.float64]
Given = dict[str, Any]


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

    @classmethod
    def of(cls, contest: Contest, fold: Fold) -> "Rows":
        train, test = (contest.rows.iloc[part] for part in fold)
        inputs = Inputs.learn(train, contest.spec)
        churned, judged = (rows["churned"].to_numpy(dtype=np.int64) for rows in (train, test))
        return cls(*inputs.encode(train), churned, *inputs.encode(test), judged, inputs.cardinalities)

    def content(self) -> bytes:
        return b"".join(
            part.tobytes() for part in (self.numeric, self.codes, self.churned, self.judged_codes)
        )


Fitted = tuple[Scores, int]
"""Scores of the judged rows, and how many trees gave them (0: no matter)."""


def logistic_regression(rows: Rows, seed: int, given: Given, stop: bool) -> Fitted:
    """On log1p, standardised, with gaps flagged and categories one-hot."""
    from sklearn.linear_model import LogisticRegression

    preprocessing = Preprocessing.fit(rows.numeric)

    def matrix(numeric: NDArray[np.float64], codes: NDArray[np.int64]) -> Any:
        # sparse: one column of 4,000 categories would be gigabytes
        numbers = sparse.csr_array(preprocessing(torch.from_numpy(numeric)).numpy())
        return sparse.hstack([numbers, *_one_hot(codes, rows.cardinalities)], "csr")

    model = LogisticRegression(max_iter=1000, **given).fit(matrix(rows.numeric, rows.codes), rows.churned)
    return model.predict_proba(matrix(rows.judged_numeric, rows.judged_codes))[:, 1], 0


def random_forest(rows: Rows, seed: int, given: Given, stop: bool) -> Fitted:
    """The classic recipe: 200 trees of depth 10. To bound the time of tuning, trials grow 100 trees, and a
    tree draws at most 30,000 rows."""
    from sklearn.ensemble import RandomForestClassifier

    drawn = {"max_samples": 30_000} if len(rows.churned) > 30_000 else {}
    trees = {"n_estimators": 100 if stop else 200}
    settings = {"max_depth": 10, "n_jobs": JOBS, "random_state": seed, **trees, **drawn} | given
    learned, judged = _forest_matrices(rows, seed)
    model = RandomForestClassifier(**settings).fit(learned, rows.churned)
    return model.predict_proba(judged)[:, 1], 0


def lightgbm(rows: Rows, seed: int, given: Given, stop: bool) -> Fitted:
    from lightgbm import LGBMClassifier, early_stopping

    learned, judged = _frames(rows)
    model = LGBMClassifier(random_state=seed, n_jobs=JOBS, verbose=-1, subsample_freq=1, **given)
    callbacks = [early_stopping(PATIENCE, verbose=False)]
    watched = {"eval_set": [(judged, rows.judged)], "callbacks": callbacks} if stop else {}
    model.fit(learned, rows.churned, **watched)
    return model.predict_proba(judged)[:, 1], model.best_iteration_ or 0


def xgboost(rows: Rows, seed: int, given: Given, stop: bool) -> Fitted:
    from xgboost import XGBClassifier

    learned, judged = _frames(rows)
    watched = {"early_stopping_rounds": PATIENCE, "eval_metric": "logloss"} if stop else {}
    model = XGBClassifier(random_state=seed, n_jobs=JOBS, enable_categorical=True, **watched, **given)
    model.fit(learned, rows.churned, eval_set=[(judged, rows.judged)] if stop else None, verbose=False)
    return model.predict_proba(judged)[:, 1], model.best_iteration + 1 if stop else 0


def catboost(rows: Rows, seed: int, given: Given, stop: bool) -> Fitted:
    from catboost import CatBoostClassifier

    learned, judged = _frames(rows, categories=False)
    if "bagging_temperature" in given:
        given = given | {"bootstrap_type": "Bayesian"}
    model = CatBoostClassifier(
        random_seed=seed, thread_count=JOBS, verbose=False, allow_writing_files=False, **given
    )
    watched = {"eval_set": (judged, rows.judged), "early_stopping_rounds": PATIENCE} if stop else {}
    categorical = [name for name in learned if name.startswith("c")]
    model.fit(learned, rows.churned, cat_features=categorical, **watched)
    return model.predict_proba(judged)[:, 1], int(model.tree_count_)


def realmlp(rows: Rows, seed: int, given: Given, stop: bool) -> Fitted:
    """RealMLP with its authors' defaults (Holzmüller and others, 2024); a gap is the column's median."""
    from pytabkit import RealMLP_TD_Classifier

    middle = np.nan_to_num(np.nanmedian(np.where(np.isfinite(rows.numeric), rows.numeric, np.nan), axis=0))
    learned, judged = (
        frame.fillna(dict(zip(frame.columns, middle, strict=False))) for frame in _frames(rows)
    )
    model = RealMLP_TD_Classifier(random_state=seed, device="cpu", n_threads=JOBS, **given)
    return model.fit(learned, rows.churned).predict_proba(judged)[:, 1], 0


RIVALS: dict[str, Callable[[Rows, int, Given, bool], Fitted]] = {
    "logistic_regression": logistic_regression,
    "random_forest": random_forest,
    "lightgbm": lightgbm,
    "xgboost": xgboost,
    "catboost": catboost,
    "realmlp": realmlp,
}
TREES = {"lightgbm": "n_estimators", "xgboost": "n_estimators", "catboost": "iterations"}
"""What each library calls the number of trees."""
FIRST: dict[str, Given] = {"catboost": {"learning_rate": 0.03}}
"""The first trial where it is not the library's defaults: CatBoost's automatic rate follows the number of
trees, which early stopping changes; this is the rate that its documentation names."""
UNTUNED = ("realmlp",)
"""Runs as it comes: 188,560 rows take it a third of an hour."""
WITHOUT_SEED = ("logistic_regression",)
"""The same whatever the seed."""


def fitted_scores(name: str, given: Given, rows: Rows, seed: int) -> Scores:
    scores, _ = RIVALS[name](rows, seed, given, False)
    return np.asarray(scores, dtype=np.float64)


def tuned(name: str, folds: Sequence[Rows], trials: int, seed: int = 0) -> Given:
    """The settings of least log-loss over the rows that the folds judge, of `trials` tried; without a fold
    the defaults."""
    if not folds:
        return {}

    def objective(trial: optuna.Trial) -> float:
        given = SPACES[name](trial) if trial.number else FIRST.get(name, {})
        stopped = {TREES[name]: MOST_TREES} if name in TREES else {}
        found = [RIVALS[name](rows, seed, given | stopped, True) for rows in folds]
        trees = max(1, round(float(np.mean([number for _, number in found]))))
        trial.set_user_attr("given", given | ({TREES[name]: trees} if name in TREES else {}))
        judged = np.concatenate([rows.judged for rows in folds])
        return log_loss(judged, clipped(np.concatenate([scores for scores, _ in found])))

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=trials)
    return dict(study.best_trial.user_attrs["given"])


def clipped(scores: NDArray[Any]) -> Scores:
    """Away from 0 and 1: a forest's empty leaf is no certainty, and one such row must not decide a table."""
    return np.clip(np.asarray(scores, dtype=np.float64), 1e-6, 1 - 1e-6)


def _of_logistic_regression(trial: optuna.Trial) -> Given:
    return {"C": trial.suggest_float("C", 1e-3, 1e2, log=True)}


def _of_forest(trial: optuna.Trial) -> Given:
    return {
        "max_depth": trial.suggest_int("max_depth", 4, 20),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 1, 50, log=True),
        "max_features": trial.suggest_float("max_features", 0.1, 0.6),
    }


def _of_lightgbm(trial: optuna.Trial) -> Given:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.3, log=True),
        "num_leaves": trial.suggest_int("num_leaves", 4, 256, log=True),
        "min_child_samples": trial.suggest_int("min_child_samples", 1, 200, log=True),
        "subsample": trial.suggest_float("subsample", 0.5, 1.0),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.5, 1.0),
        "reg_lambda": trial.suggest_float("reg_lambda", 1e-2, 100, log=True),
    }


def _of_xgboost(trial: optuna.Trial) -> Given:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.3, log=True),
        "max_depth": trial.suggest_int("max_depth", 2, 10),
        "min_child_weight": trial.suggest_float("min_child_weight", 1e-2, 100, log=True),
        "subsample": trial.suggest_float("subsample", 0.5, 1.0),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.5, 1.0),
        "reg_lambda": trial.suggest_float("reg_lambda", 1e-2, 100, log=True),
        "gamma": trial.suggest_float("gamma", 1e-3, 10, log=True),
    }


def _of_catboost(trial: optuna.Trial) -> Given:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.3, log=True),
        "depth": trial.suggest_int("depth", 3, 9),
        "l2_leaf_reg": trial.suggest_float("l2_leaf_reg", 1, 30, log=True),
        "bagging_temperature": trial.suggest_float("bagging_temperature", 0.0, 1.0),
        "leaf_estimation_iterations": trial.suggest_int("leaf_estimation_iterations", 1, 10),
    }


SPACES: dict[str, Callable[[optuna.Trial], Given]] = {
    "logistic_regression": _of_logistic_regression,
    "random_forest": _of_forest,
    "lightgbm": _of_lightgbm,
    "xgboost": _of_xgboost,
    "catboost": _of_catboost,
}


def source_of(name: str) -> str:
    """The code that decides a rival's scores: what was scored by other code is scored again."""
    shared = (Rows, tuned, clipped, _frames, _forest_matrices, _one_hot)
    parts = [inspect.getsource(part) for part in (RIVALS[name], SPACES.get(name, tuned), *shared)]
    return "".join([*parts, f"{MOST_TREES} {PATIENCE} {ONE_HOT_UP_TO} {STARTUP_TRIALS} {FIRST.get(name)}"])


def _frames(rows: Rows, categories: bool = True) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Gaps and categories as the trees take them themselves."""

    def frame(numeric: NDArray[np.float64], codes: NDArray[np.int64]) -> pd.DataFrame:
        columns: dict[str, Any] = {f"n{i}": column for i, column in enumerate(numeric.T)}
        for i, (column, size) in enumerate(zip(codes.T, rows.cardinalities, strict=True)):
            columns[f"c{i}"] = pd.Categorical(column, categories=range(size + 1)) if categories else column
        return pd.DataFrame(columns)

    return frame(rows.numeric, rows.codes), frame(rows.judged_numeric, rows.judged_codes)


def _forest_matrices(rows: Rows, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import TargetEncoder

    few = [c for c, size in enumerate(rows.cardinalities) if size <= ONE_HOT_UP_TO]
    many = [c for c, size in enumerate(rows.cardinalities) if size > ONE_HOT_UP_TO]
    sizes = [rows.cardinalities[c] for c in few]
    learned = [rows.numeric, *(part.toarray() for part in _one_hot(rows.codes[:, few], sizes))]
    judged = [rows.judged_numeric, *(part.toarray() for part in _one_hot(rows.judged_codes[:, few], sizes))]
    if many:
        folds = StratifiedKFold(5, shuffle=True, random_state=seed)
        encoder = TargetEncoder(target_type="binary", cv=folds)
        learned.append(encoder.fit_transform(rows.codes[:, many], rows.churned))
        judged.append(encoder.transform(rows.judged_codes[:, many]))
    return np.hstack(learned), np.hstack(judged)


def _one_hot(codes: NDArray[np.int64], sizes: Sequence[int]) -> list[Any]:
    """A sparse [B, vocabulary] of each category; a missing or unknown one is all zeros."""
    every = np.arange(len(codes))
    parts = []
    for column, size in zip(codes.T, sizes, strict=True):
        known = column > 0
        ones = np.ones(int(known.sum()), dtype=np.float32)
        parts.append(sparse.csr_array((ones, (every[known], column[known] - 1)), shape=(len(codes), size)))
    return parts

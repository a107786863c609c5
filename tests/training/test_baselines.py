"""The baselines' matrices: categories one-hot, and 20,000 of them in little memory."""

import tracemalloc
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import OneHotEncoder

from features.spec import Feature, FeaturesConfig
from training.evaluate.baselines import Task, _joined, fit_baselines, logistic_regression, random_forest
from training.learn.inputs import Inputs

SPEC = FeaturesConfig(
    features=(
        Feature(name="n", dtype="float64"),
        Feature(name="city", dtype="string"),
        Feature(name="plan", dtype="string"),
    )
)


def table(rows: int, cities: int, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    city = draw.integers(cities, size=rows)
    odds = np.where(city % 2, 1.5, -1.5)
    return pd.DataFrame(
        {
            "user_id": [f"u{i}" for i in range(rows)],
            "event_timestamp": pd.Timestamp("2024-01-01", tz="UTC"),
            "n": np.where(draw.random(rows) < 0.1, np.nan, draw.normal(size=rows)),
            "city": [f"c{c}" for c in city],
            "plan": draw.choice(["a", "b", None], size=rows),
            "churned": (draw.random(rows) < 1 / (1 + np.exp(-odds))).astype("int8"),
        }
    )


@pytest.mark.parametrize("cities", [5, 500])
def test_categories_are_one_hot_as_scikit_learn_has_them(cities: int) -> None:
    train, test = table(2000, cities), table(300, cities + 50, seed=1)
    inputs = Inputs.learn(train, SPEC)
    numeric, codes = inputs.encode(test)
    theirs = OneHotEncoder(
        categories=[list(values) for values in inputs.vocabulary.values()],
        handle_unknown="ignore",
        sparse_output=False,
    ).fit(train[["city", "plan"]])

    found = _joined(np.nan_to_num(numeric), codes, inputs)
    dense = found if isinstance(found, np.ndarray) else found.toarray()

    assert isinstance(found, np.ndarray) == (cities < 256)
    assert np.array_equal(dense[:, 1:], theirs.transform(test[["city", "plan"]]))
    assert np.array_equal(dense[:, 0], np.nan_to_num(test["n"]))


def test_the_sparse_regression_scores_as_the_dense_one(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = table(2000, 40), table(300, 40, seed=1)
    task = Task(train, test, Inputs.learn(train, SPEC), timedelta(days=90), Path(), 0)
    dense = logistic_regression(task)
    monkeypatch.setattr("training.evaluate.baselines.DENSE_CATEGORIES", 0)

    assert logistic_regression(task) == pytest.approx(dense, abs=2e-3)


def test_a_forest_scores_the_same_to_the_bit_with_any_number_of_threads() -> None:
    train, test = table(2000, 40), table(20_000, 40, seed=1)

    def scores(jobs: int) -> np.ndarray:
        inputs = Inputs.learn(train, SPEC)
        return random_forest(Task(train, test, inputs, timedelta(days=90), Path(), 0, jobs=jobs))

    alone = scores(1)
    assert all(scores(4).tobytes() == alone.tobytes() for _ in range(2))


def test_twenty_thousand_categories_take_little_memory() -> None:
    train, test = table(30_000, 20_000), table(2000, 20_000, seed=1)
    tracemalloc.start()
    task = Task(train, test, Inputs.learn(train, SPEC), timedelta(days=90), Path(), 0)
    scores, _ = fit_baselines(("logistic_regression", "random_forest"), task, "labelled")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 1e9
    for found in scores.values():
        assert np.isfinite(found).all()

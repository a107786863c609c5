"""The quality benchmark may not flatter ours: who teaches whom, and how wide the intervals are."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from benchmarks import tables
from benchmarks.contests import DEVELOPED, UNSEEN_LOGS, UNSEEN_TABLES, forward_folds
from benchmarks.differences import compare, losses, losses_of_average
from benchmarks.rivals import Rows, fitted_scores, tuned
from training.learn.forward import origins

HORIZON = timedelta(days=90)


def log_of(snapshots: pd.DatetimeIndex) -> pd.DataFrame:
    return pd.DataFrame({"event_timestamp": snapshots.repeat(6), "churned": [0, 1] * 3 * len(snapshots)})


def test_settings_of_a_rival_are_chosen_forward_in_time() -> None:
    snapshots = pd.date_range("2021-02-01", periods=12, freq="MS", tz="UTC")
    rows = log_of(snapshots)
    train = np.flatnonzero(rows["event_timestamp"] < snapshots[9])
    folds = forward_folds(rows, train, HORIZON)
    moments = rows["event_timestamp"]
    assert {moments.iloc[judge].unique()[0] for _, judge in folds} == set(snapshots[6:9])
    for teach, judge in folds:
        assert len(judge) == 6
        assert moments.iloc[teach].max() + HORIZON <= moments.iloc[judge].min()
        assert set(teach) | set(judge) <= set(train)


def test_what_ours_chooses_on_is_open_to_rivals_too() -> None:
    rows = log_of(pd.date_range("2021-02-01", periods=20, freq="MS", tz="UTC"))
    of_ours = origins(rows["event_timestamp"], rows["churned"].to_numpy(), HORIZON)
    of_rivals = {judge.tobytes() for _, judge in forward_folds(rows, np.arange(len(rows)), HORIZON)}
    assert of_ours
    assert {judge.tobytes() for _, judge in of_ours} <= of_rivals


def test_a_log_without_an_origin_leaves_a_rival_its_defaults() -> None:
    rows = log_of(pd.date_range("2021-03-01", periods=3, freq="MS", tz="UTC"))
    assert forward_folds(rows, np.arange(len(rows)), HORIZON) == ()
    assert tuned("logistic_regression", [], trials=3) == {}


def test_nothing_unseen_is_in_what_settings_are_chosen_on() -> None:
    assert not {*UNSEEN_LOGS, *UNSEEN_TABLES} & set(DEVELOPED)
    assert len(UNSEEN_TABLES) == 10
    assert set(UNSEEN_TABLES) <= set(tables.REAL)


def test_the_interval_holds_the_chance_of_customers_and_of_seeds() -> None:
    """Against the closed form: variance of a mean over customers plus that of a mean over seeds, for each."""
    draw = np.random.default_rng(0)
    customers, seeds, of_rows, of_seeds = 4000, 5, 0.3, 0.02
    rows = draw.normal(0, of_rows, customers)
    ours = 0.5 + draw.normal(0, of_seeds, (seeds, 1)) + np.zeros(customers)
    rival = 0.55 + rows + draw.normal(0, of_seeds, (seeds, 1))
    found = compare(ours, rival, np.arange(customers))
    spread = sum(one.mean(axis=1).var(ddof=1) / seeds for one in (ours, rival)) + rows.var() / customers
    assert found.difference == pytest.approx(rival.mean() - ours.mean())
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(np.sqrt(spread), rel=0.1)
    without_seeds = compare(ours[:1], rival[:1], np.arange(customers))
    assert without_seeds.high - without_seeds.low < found.high - found.low


def test_rows_of_one_customer_are_one_piece_of_evidence() -> None:
    draw = np.random.default_rng(1)
    of_customer = draw.normal(0, 0.3, 400)
    rival = np.repeat(of_customer, 10)[None]
    found = compare(np.zeros_like(rival), rival, np.repeat(np.arange(400), 10))
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(of_customer.std() / 20, rel=0.1)


def test_an_average_of_seeds_has_its_own_loss_and_a_smaller_spread() -> None:
    draw = np.random.default_rng(2)
    churned = (draw.random(3000) < 0.4).astype(np.int64)
    scores = np.clip(0.4 + draw.normal(0, 0.1, (4, 3000)), 0.01, 0.99)
    averaged = losses_of_average(churned, scores)
    whole = losses(churned, scores.mean(axis=0, keepdims=True))
    np.testing.assert_allclose(averaged.mean(axis=0), whole[0])
    assert averaged.mean() < losses(churned, scores).mean()
    with_average = compare(whole, averaged, np.arange(3000))
    assert with_average.difference == pytest.approx(0, abs=1e-12)


def rows_with_cities(cities: int, size: int) -> Rows:
    draw = np.random.default_rng(3)
    numeric, codes = draw.normal(size=(2 * size, 2)), draw.integers(0, cities + 1, (2 * size, 1))
    churned = (draw.random(2 * size) < 1 / (1 + np.exp(-numeric[:, 0]))).astype(np.int64)
    halves = slice(size), slice(size, None)
    learn, judge = ((numeric[half], codes[half], churned[half]) for half in halves)
    return Rows(*learn, *judge, (cities,))


@pytest.mark.parametrize("name", ["logistic_regression", "random_forest"])
def test_twenty_thousand_categories_fit_into_memory(name: str) -> None:
    """A dense one-hot of them would take 3 GB."""
    import tracemalloc

    rows = rows_with_cities(20_000, 20_000)
    tracemalloc.start()
    scores = fitted_scores(name, {"n_estimators": 10} if name == "random_forest" else {}, rows, seed=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6
    assert scores.shape == (20_000,)
    assert scores[rows.judged == 1].mean() > scores[rows.judged == 0].mean() + 0.1


def test_tuning_is_never_below_the_defaults_on_the_rows_that_choose() -> None:
    rows = rows_with_cities(5, 500)
    assert tuned("logistic_regression", [rows], trials=1) == {}
    chosen = tuned("logistic_regression", [rows], trials=6)

    def loss(given: dict[str, float]) -> float:
        scores = fitted_scores("logistic_regression", given, rows, seed=0)
        return float(losses(rows.judged, scores[None]).mean())

    assert loss(chosen) <= loss({})

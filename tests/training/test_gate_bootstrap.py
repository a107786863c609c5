"""The intervals behind the gates, against independent sources: SciPy, the formula, and simulated truth."""

import time

import numpy as np
import pytest
from scipy import stats

from training.evaluate.bootstrap import (
    MOST_CLUSTERS,
    Resampling,
    cluster_sums,
    mean_interval,
    resampled,
    simultaneous_means,
)
from training.gates.calibration import ece_bound
from training.gates.sample import Parts, Sample


def clusters(draw: np.random.Generator, customers: int, shared: float = 1.0):
    """Rows of customers who each have a level of their own: 1 to 6 rows, truth 0."""
    rows = draw.integers(1, 7, customers)
    customer = np.repeat(np.arange(customers), rows)
    return shared * draw.normal(size=customers)[customer] + draw.normal(size=rows.sum()), customer


def test_it_is_scipy_s_bootstrap_of_customers() -> None:
    values, customer = clusters(np.random.default_rng(0), 400)
    sums = cluster_sums(customer, np.column_stack([values, np.ones(len(values))]))

    ours = mean_interval(values, customer, Resampling(resamples=4000))
    theirs = stats.bootstrap(
        (sums[:, 0], sums[:, 1]),
        lambda total, rows, axis: total.sum(axis=axis) / rows.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval

    assert ours.estimate == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_it_is_as_wide_as_the_linearised_variance_of_a_clustered_mean() -> None:
    values, customer = clusters(np.random.default_rng(1), 3000)
    residual = np.bincount(customer, values - values.mean())
    error = np.sqrt((residual**2).sum()) / len(values)
    naive = values.std() / np.sqrt(len(values))

    found = mean_interval(values, customer, Resampling(resamples=2000))

    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.06)
    assert error > 1.4 * naive  # rows taken for independent would promise too much


def test_95_percent_of_intervals_contain_the_true_value() -> None:
    draw = np.random.default_rng(2)
    held = [
        interval.low <= 0 <= interval.high
        for interval in (
            mean_interval(*clusters(draw, 300), Resampling(resamples=400, seed=seed)) for seed in range(300)
        )
    ]
    assert 0.91 <= np.mean(held) <= 0.98


def test_the_bounds_of_twenty_parts_hold_at_once() -> None:
    """Where no part is worse, at most about 5 % of all models are found worse in their worst part."""
    draw, alarms = np.random.default_rng(3), 0
    for seed in range(200):
        values, customer = clusters(draw, 400)
        part = draw.integers(0, 20, len(values))
        _, low = simultaneous_means(values, [(part, 20)], customer, Resampling(resamples=300, seed=seed))
        alarms += bool((low > 0).any())
    assert alarms / 200 <= 0.09


def test_parts_have_separate_means_and_rows_outside_of_all_parts_do_not_count() -> None:
    values, customer = np.array([1.0, 3.0, 5.0, 100.0]), np.array([0, 1, 2, 3])
    means, low = simultaneous_means(
        values, [(np.array([0, 0, 1, -1]), 2), (np.array([0, 0, 0, -1]), 1)], customer, Resampling(200)
    )
    assert means.tolist() == [2.0, 5.0, 3.0]
    assert (low <= means).all()


@pytest.mark.parametrize(("customers", "off"), [(700, 0.0), (700, 0.05), (2000, 0.03)])
def test_the_bound_of_the_calibration_error_covers_the_truth(customers: int, off: float) -> None:
    """Scores at a known distance from the truth."""
    draw, bounds = np.random.default_rng(4), []
    for seed in range(100):
        truth = np.repeat(draw.uniform(0.1, 0.9, customers), 2)
        sample = Sample(
            customer=np.repeat(np.arange(customers), 2),
            churned=(draw.random(len(truth)) < truth).astype(float),
            score=truth + off,
            threshold=0.5,
            periods=Parts(np.zeros(len(truth), np.int64), ("one",)),
        )
        bounds.append(ece_bound(sample, Resampling(resamples=200, seed=seed))[1])
    assert np.mean(np.array(bounds) >= off) >= 0.92
    assert np.mean(bounds) <= off + 0.05  # and is informative: the bound is close to the true value


def test_the_same_seed_gives_the_same_bits_and_70_000_rows_take_a_second() -> None:
    values, customer = clusters(np.random.default_rng(5), 20_000)
    start = time.process_time()
    one = mean_interval(values, customer, Resampling())
    spent = time.process_time() - start
    assert one == mean_interval(values, customer, Resampling())
    assert one != mean_interval(values, customer, Resampling(seed=1))
    assert spent < 3


def test_very_many_customers_are_drawn_in_bunches_of_the_same_width() -> None:
    values, customer = clusters(np.random.default_rng(6), 3 * MOST_CLUSTERS)
    sums = cluster_sums(customer, np.column_stack([values, np.ones(len(values))]))
    residual = np.bincount(customer, values - values.mean())
    error = np.sqrt((residual**2).sum()) / len(values)

    assert len(sums) == MOST_CLUSTERS
    assert sums.sum(axis=0) == pytest.approx([values.sum(), len(values)])
    drawn = resampled(sums, Resampling(300))
    assert (drawn[:, 0] / drawn[:, 1]).std() == pytest.approx(error, rel=0.12)


def test_nan_stays_nan() -> None:
    found = mean_interval(np.array([1.0, np.nan, 2.0]), np.array([0, 1, 2]), Resampling(100))
    assert np.isnan([found.estimate, found.low, found.high]).all()

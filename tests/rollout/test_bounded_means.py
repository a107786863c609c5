"""Means of bounded numbers: bets, and the intervals that they leave."""

import numpy as np
import pytest
from scipy.stats import binom

from rollout.statistics.bounded_means import (
    BINS,
    STAKES,
    Histogram,
    above,
    below,
    difference_interval,
    excess_mean,
    mean_interval,
)

OUTCOMES = np.array([0.0, 1.0])


def test_capital_is_the_mean_of_what_each_stake_made_of_one() -> None:
    data = np.array([0.25, 0.5, 0.5, 1.0])
    bets = [np.prod(1 + stake * (data / 0.4 - 1)) for stake in STAKES]
    assert np.exp(above(Histogram.of(data), np.array([0.4]))) == pytest.approx(np.mean(bets))
    bets = [np.prod(1 + stake * ((1 - data) / 0.3 - 1)) for stake in STAKES]
    assert np.exp(below(Histogram.of(data), np.array([0.7]))) == pytest.approx(np.mean(bets))


@pytest.mark.parametrize("mean", [0.01, 0.3, 0.9])
def test_the_odds_are_fair(mean: float) -> None:
    events = np.arange(13)
    data = Histogram(OUTCOMES, np.column_stack([12 - events, events]).astype(float))
    likely = binom.pmf(events, 12, mean)
    for capital in (above(data, np.array([mean])), below(data, np.array([mean]))):
        assert likely @ np.exp(capital[:, 0]) == pytest.approx(1)


def test_rounding_never_adds_evidence() -> None:
    data = np.random.default_rng(0).random(500)
    exact = Histogram(data, np.ones(500))
    for mean in (0.3, 0.5):
        assert above(Histogram.of(data), np.array([mean])) <= above(exact, np.array([mean]))
        assert below(Histogram.of(data, up=True), np.array([mean])) <= below(exact, np.array([mean]))
    lattice = np.arange(BINS + 1) / BINS
    assert (Histogram.of(lattice).values == Histogram.of(lattice, up=True).values).all()


@pytest.mark.parametrize("tolerance", [0.0, 0.05])
def test_the_smallest_product_is_bounded_from_below_and_closely(tolerance: float) -> None:
    random = np.random.default_rng(1)
    for shift in (0.0, 0.1, 0.2):
        canary = Histogram.of(np.clip(random.beta(2, 5, 300) + shift, 0, 1))
        stable = Histogram.of(random.beta(2, 5, 900), up=True)
        levels = np.linspace(0.15, 0.6, 601)
        smallest = (above(canary, levels + tolerance) + below(stable, levels)).min()
        found = excess_mean(canary, stable, tolerance)
        assert found <= smallest
        assert found == pytest.approx(smallest, abs=0.1 + 0.1 * abs(smallest))


def test_expectation_over_two_variants_is_at_most_one() -> None:
    events, beside = np.meshgrid(np.arange(11), np.arange(21), indexing="ij")
    canary = Histogram(OUTCOMES, np.stack([10 - events, events], axis=-1).astype(float))
    stable = Histogram(OUTCOMES, np.stack([20 - beside, beside], axis=-1).astype(float))
    for mean in (0.05, 0.4):
        likely = binom.pmf(events, 10, mean + 0.1) * binom.pmf(beside, 20, mean)
        assert (likely * np.exp(excess_mean(canary, stable, 0.1))).sum() <= 1


def test_looking_often_at_two_means_stays_within_alpha() -> None:
    rollouts, alpha, values = 400, 0.05, np.arange(1, 10) / 10
    random = np.random.default_rng(2)
    likely = np.full(9, 1 / 9)
    canary, stable, crossed = np.zeros((rollouts, 9)), np.zeros((rollouts, 9)), np.zeros(rollouts, dtype=bool)
    for _ in range(40):
        canary += random.multinomial(10, likely, rollouts)
        stable += random.multinomial(30, likely, rollouts)
        crossed |= excess_mean(Histogram(values, canary), Histogram(values, stable), 0.0) >= -np.log(alpha)
    assert crossed.mean() <= alpha


def empirical_bernstein(data: np.ndarray, alpha: float) -> tuple[float, float]:
    """Predictable plug-in empirical-Bernstein confidence sequence: Waudby-Smith & Ramdas 2024, theorem 2."""
    time = np.arange(1, len(data) + 1)
    mean = (0.5 + np.cumsum(data)) / (time + 1)
    variance = (0.25 + np.cumsum((data - mean) ** 2)) / (time + 1)
    before_mean, before = np.r_[0.5, mean[:-1]], np.r_[0.25, variance[:-1]]
    bets = np.minimum(np.sqrt(2 * np.log(2 / alpha) / (before * time * np.log1p(time))), 0.5)
    psi = -np.log1p(-bets) - bets
    centre = (bets * data).sum() / bets.sum()
    margin = (np.log(2 / alpha) + ((data - before_mean) ** 2 * psi).sum()) / bets.sum()
    return centre - margin, centre + margin


@pytest.mark.parametrize("rows", [50, 500, 5000])
def test_intervals_are_no_wider_than_empirical_bernsteins(rows: int) -> None:
    data = np.random.default_rng(4).beta(2, 5, rows)
    low, high = mean_interval(data, 0.05)
    their_low, their_high = empirical_bernstein(data, 0.05)
    assert low < data.mean() < high
    assert high - low < their_high - their_low
    assert max(low, their_low) < 2 / 7 < min(high, their_high)


def test_the_mean_is_inside_at_all_times() -> None:
    random = np.random.default_rng(5)
    missed = 0
    for _ in range(100):
        data = random.integers(0, 5, 400) / 10
        intervals = (mean_interval(data[:rows], 0.1) for rows in (5, 20, 80, 400))
        missed += any(not low <= 0.2 <= high for low, high in intervals)
    assert missed / 100 <= 0.1


def test_intervals_of_differences() -> None:
    random = np.random.default_rng(6)
    canary, stable = np.clip(random.beta(2, 5, 2000) + 0.1, 0, 1), random.beta(2, 5, 4000)
    low, high = difference_interval(canary, stable, 0.05)
    assert 0.05 < low < 0.1 < high < 0.15
    mirrored = difference_interval(stable, canary, 0.05)
    assert mirrored == pytest.approx((-high, -low), abs=0.005)


def test_of_no_data_everything_is_possible() -> None:
    none = np.empty(0)
    assert mean_interval(none, 0.05) == (0.0, 1.0)
    assert difference_interval(none, np.ones(3), 0.05) == (-1.0, 1.0)
    assert excess_mean(Histogram.of(none), Histogram.of(none), 0.0) == pytest.approx(0)

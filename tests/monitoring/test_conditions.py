"""Whether a score means the same at all moments: the stated rate where it does, else a doubt."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binom, ttest_1samp
from sklearn.linear_model import LogisticRegression

from monitoring.performance.conditions import LEAST_MOMENTS, Stability, stability

RATE = 0.1
CUSTOMERS, MOMENTS = 300, 9


def history(
    seed: int, level: np.ndarray | None = None, slope: np.ndarray | None = None, moments: int = MOMENTS
) -> Stability:
    """Miscalibrated scores whose level differs between moments at random; `level` and `slope` are added."""
    random = np.random.default_rng(seed)
    z = 0.5 + random.normal(0, 1.2, (moments, CUSTOMERS))
    extra = np.zeros(moments) if level is None else level
    steep = np.ones(moments) if slope is None else slope
    truth = steep[:, None] * z + extra[:, None] + random.normal(0, 0.2, (moments, 1))
    outcome = (random.random(z.shape) < expit(truth)).astype(np.float64)
    number = np.repeat(np.arange(moments), CUSTOMERS)
    return stability(expit(1.3 * z - 0.4).ravel(), outcome.ravel(), number, np.arange(moments) * 14.0)


def test_a_condition_that_holds_is_doubted_at_most_at_the_stated_rate() -> None:
    """400 histories: with a rate of .1, more than 53 doubts have a probability below 1 %."""
    doubts = sum(history(seed).doubted(RATE) for seed in range(400))
    assert doubts <= binom.ppf(0.99, 400, RATE)


def test_a_drift_of_the_level_is_doubted() -> None:
    assert sum(history(seed, level=0.15 * np.arange(MOMENTS)).doubted(RATE) for seed in range(40)) >= 36


def test_the_newest_moment_alone_is_doubted_when_it_differs() -> None:
    newest = np.r_[np.zeros(MOMENTS - 1), 1.5]
    assert sum(history(seed, level=newest).doubted(RATE) for seed in range(40)) >= 36


def test_scores_that_lose_their_order_are_doubted_though_the_level_stays() -> None:
    fading = np.linspace(1.2, 0.2, MOMENTS)
    assert sum(history(seed, slope=fading).doubted(RATE) for seed in range(40)) >= 36


def test_level_and_slope_are_those_of_a_logistic_regression_of_the_moment() -> None:
    """One Newton step from the calibrator is close to the fit itself where the moment is close to it."""
    random = np.random.default_rng(1)
    z = random.normal(0, 1, (6, 20_000))
    shift = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.2])
    outcome = (random.random(z.shape) < expit(z + shift[:, None])).astype(np.float64)
    number = np.repeat(np.arange(6), 20_000)
    found = stability(expit(z).ravel(), outcome.ravel(), number, np.arange(6.0))
    for one in (0, 5):
        other = LogisticRegression(C=1e9).fit(logit(expit(z[one]))[:, None], outcome[one])
        assert found.levels[one] - found.levels[:5].mean() == pytest.approx(other.intercept_[0], abs=0.04)
        assert 1 + found.slopes[one] == pytest.approx(other.coef_[0, 0], abs=0.06)


def test_the_newest_moment_is_judged_by_the_t_distribution() -> None:
    """Against scipy: a prediction interval is a t-test of the difference, scaled by sqrt(1 + 1/n)."""
    found = history(3, moments=6)
    others, newest = found.levels[:-1], found.levels[-1]
    spread = others.std(ddof=1)
    pretended = others.mean() + (newest - others.mean()) / np.sqrt(1 + 1 / 5) / np.sqrt(5)
    assert found.p_value <= 4 * ttest_1samp(others, pretended).pvalue + 1e-12
    assert spread > 0


def test_too_few_moments_are_a_doubt_and_no_error() -> None:
    assert history(0, moments=LEAST_MOMENTS - 1).doubted(RATE)
    nothing = np.zeros(0)
    assert stability(nothing, nothing, nothing.astype(np.int64), nothing).doubted(RATE)


def test_moments_with_one_outcome_are_left_out() -> None:
    z = np.tile(np.linspace(-2, 2, 100), (6, 1))
    outcome = (np.random.default_rng(0).random(z.shape) < expit(z)).astype(np.float64)
    outcome[2] = 1.0
    found = stability(expit(z).ravel(), outcome.ravel(), np.repeat(np.arange(6), 100), np.arange(6.0))
    assert found.moments == 5 and np.isfinite(found.p_value)

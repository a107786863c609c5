"""The test of two event rates: exact where it can be computed, simulated where it is looked at often."""

import numpy as np
import pytest
from scipy.stats import binom

from rollout.statistics.e_values import log_mean, mean_evidence
from rollout.statistics.event_rates import PRIOR, RATIOS, Counts, excess_events, over_ratios, window_evidence


def expectation(canary: int, stable: int, rates: tuple[float, float], tolerance: float = 0.0) -> np.ndarray:
    """Of each ratio's e-value over all outcomes, given the number of requests to each."""
    of_canary, of_stable = np.meshgrid(np.arange(canary + 1), np.arange(stable + 1), indexing="ij")
    likely = binom.pmf(of_canary, canary, rates[0]) * binom.pmf(of_stable, stable, rates[1])
    evidence = window_evidence(Counts(np.full_like(of_canary, canary), of_canary,
                                      np.full_like(of_canary, stable), of_stable), tolerance)  # fmt: skip
    return np.asarray((likely[..., None] * np.exp(evidence)).sum(axis=(0, 1)))


def test_it_is_the_likelihood_ratio_of_the_conditional_binomial_test() -> None:
    canary, events, stable, others = 300, 9, 700, 6
    share = canary / (canary + stable)
    moved = share * RATIOS / (1 + share * (RATIOS - 1))
    expected = binom.logpmf(events, events + others, moved) - binom.logpmf(events, events + others, share)
    assert window_evidence(Counts(canary, events, stable, others)) == pytest.approx(expected)


@pytest.mark.parametrize("rate", [0.001, 0.05, 0.5, 0.95])
@pytest.mark.parametrize(("canary", "stable"), [(5, 40), (20, 20), (40, 3)])
def test_expectation_is_at_most_one_where_the_canary_is_no_worse(
    canary: int, stable: int, rate: float
) -> None:
    assert (expectation(canary, stable, (rate, rate)) <= 1 + 1e-9).all()
    assert (expectation(canary, stable, (rate / 2, rate)) <= 1 + 1e-9).all()


@pytest.mark.parametrize("stable_rate", [0.0, 0.02, 0.4])
def test_expectation_is_at_most_one_at_the_edge_of_the_tolerance(stable_rate: float) -> None:
    assert (expectation(30, 60, (stable_rate + 0.1, stable_rate), tolerance=0.1) <= 1 + 1e-9).all()
    assert (expectation(30, 60, (stable_rate + 0.1, stable_rate)) > 1).any()


@pytest.mark.parametrize("both", [0.0, 0.05, 0.1])
def test_mirrored_requests_may_fail_together_or_alone(both: float) -> None:
    """Two answers to one request: an error of 10 % each, together as often as `both`."""
    outcomes = {(0, 0): 1 - 0.2 + both, (1, 0): 0.1 - both, (0, 1): 0.1 - both, (1, 1): both}
    mean = sum(p * np.exp(window_evidence(Counts(1, c, 1, s))) for (c, s), p in outcomes.items())
    assert (mean <= 1 + 1e-9).all()


REGIMES = [(0.01, 0.01, 2000), (0.1, 0.001, 8000), (0.5, 0.01, 3000), (0.5, 0.1, 1000), (0.9, 0.1, 3000)]


@pytest.mark.parametrize(("share", "rate", "requests"), REGIMES)
def test_looking_every_few_requests_stays_within_alpha(share: float, rate: float, requests: int) -> None:
    rollouts, step, alpha = 2000, 10, 0.05
    random = np.random.default_rng(7)
    totals, crossed = np.zeros((4, rollouts)), np.zeros(rollouts, dtype=bool)
    for _ in range(0, requests, step):
        beside = random.negative_binomial(step, share, rollouts)
        totals += [np.full(rollouts, step), random.binomial(step, rate, rollouts), beside,
                   random.binomial(beside, rate)]  # fmt: skip
        crossed |= over_ratios(window_evidence(Counts(*totals))) >= -np.log(alpha)
    assert crossed.mean() <= alpha


WANDERS = {
    "share grows": (np.linspace(0.02, 0.3, 200), np.full(200, 0.02)),
    "share falls": (np.linspace(0.5, 0.05, 200), np.full(200, 0.02)),
    "rate grows": (np.full(200, 0.1), np.linspace(0.001, 0.1, 200)),
    "bursts": (np.full(200, 0.1), np.where(np.arange(200) % 20 == 0, 0.5, 0.001)),
}


@pytest.mark.parametrize("how", WANDERS)
def test_a_share_that_wanders_or_errors_in_bursts_break_nothing(how: str) -> None:
    random = np.random.default_rng(8)
    totals, crossed = np.zeros((4, 2000)), np.zeros(2000, dtype=bool)
    for share, rate in zip(*WANDERS[how], strict=True):
        canary = random.binomial(50, share, 2000)
        totals += [canary, random.binomial(canary, rate), 50 - canary, random.binomial(50 - canary, rate)]
        crossed |= over_ratios(window_evidence(Counts(*totals))) >= -np.log(0.05)
    assert crossed.mean() <= 0.05


def test_a_threefold_error_rate_is_found_within_a_thousand_requests() -> None:
    random = np.random.default_rng(3)
    beside = random.negative_binomial(1000, 0.05, 500)
    counts = Counts(
        np.full(500, 1000), random.binomial(1000, 0.03, 500), beside, random.binomial(beside, 0.01)
    )
    assert (excess_events([counts]) >= np.log(100)).mean() > 0.8


def test_errors_where_stable_has_none() -> None:
    none_beside = Counts(canary=100, canary_events=5, stable=9900, stable_events=0)
    assert excess_events([none_beside]) > np.log(1000)
    assert excess_events([none_beside], tolerance=0.1) < 0


def test_one_crowd_in_two_windows_is_not_two_crowds() -> None:
    """The first window had an outage of both at weight 50; pooled, the canary looks much worse."""
    outage = Counts(canary=1000, canary_events=300, stable=1000, stable_events=300)
    calm = Counts(canary=100, canary_events=1, stable=9900, stable_events=99)
    pooled = Counts(1100, 301, 10900, 399)
    assert excess_events([pooled]) > np.log(1e6)
    assert excess_events([outage, calm]) < 0


def test_a_window_with_one_variant_alone_is_no_evidence() -> None:
    assert excess_events([Counts(1000, 900, 0, 0)]) == pytest.approx(0)
    assert excess_events([Counts(0, 0, 1000, 900)], tolerance=0.01) == pytest.approx(0)
    assert excess_events([]) == pytest.approx(0)


def test_rollouts_side_by_side_are_judged_as_alone() -> None:
    many = Counts(np.array([100, 200]), np.array([3, 9]), np.array([900, 100]), np.array([2, 1]))
    alone = [float(excess_events([Counts(*of)], 0.01)) for of in ((100, 3, 900, 2), (200, 9, 100, 1))]
    assert excess_events([many], 0.01) == pytest.approx(alone)


def test_means_of_evidence() -> None:
    assert PRIOR.sum() == pytest.approx(1)
    assert np.exp(mean_evidence([np.log(3), np.log(5)])) == pytest.approx(4)
    assert np.exp(mean_evidence([np.log(3), -np.inf], [0.9, 0.1])) == pytest.approx(2.7)
    assert np.isnan(mean_evidence([np.nan, 0.0]))
    assert log_mean(np.array([2000.0, 1000.0]), np.array([0.5, 0.5])) == pytest.approx(2000 - np.log(2))

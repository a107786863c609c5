"""The sign test in blocks of time: fair odds, whatever requests of one block have to do with each other."""

import numpy as np
import pytest
from scipy.stats import binom, hypergeom

from rollout.evidence import Tries
from rollout.statistics.sign_test import excess_in_blocks, losses

Rows = list[float]


def tries(total: Rows, events: Rows) -> Tries:
    return Tries(np.array(total, dtype=float), np.array(events, dtype=float))


def test_a_loss_is_the_difference_of_two_probabilities_over_the_draws() -> None:
    (found,) = losses(tries([5], [2]), tries([50], [4]))
    drawn = hypergeom(50, 4, 5)
    assert found == pytest.approx(drawn.cdf(1) - drawn.sf(2))
    (mirrored,) = losses(tries([50], [4]), tries([5], [2]))
    assert mirrored == pytest.approx(-found)
    assert losses(tries([7], [7]), tries([900], [0])) == pytest.approx([1.0])
    assert losses(tries([0, 3], [0, 0]), tries([9, 0], [9, 0])).tolist() == [0.0, 0.0]


def test_a_tolerance_adds_so_many_to_stable() -> None:
    (found,) = losses(tries([20], [3]), tries([20], [0]), tolerance=0.1)
    added = binom(20, 0.1)
    assert found == pytest.approx(added.cdf(2) - added.sf(3))


@pytest.mark.parametrize(("canary", "stable"), [(4, 30), (30, 30), (40, 6)])
def test_the_odds_are_fair_where_a_block_is_all_or_nothing(canary: int, stable: int) -> None:
    """The hardest case for a count of requests: whole blocks stall, on either variant alike."""
    random = np.random.default_rng(2)
    stalled = random.random((2, 4000)) < 0.3
    rates = np.where(stalled, 0.8, 0.01)
    one = Tries(np.full(4000, float(canary)), random.binomial(canary, rates[0]).astype(float))
    other = Tries(np.full(4000, float(stable)), random.binomial(stable, rates[1]).astype(float))
    lost = losses(one, other)
    assert abs(lost.mean()) < 4 * lost.std() / np.sqrt(len(lost))


def test_stalls_of_either_process_roll_back_no_more_than_alpha() -> None:
    random, alpha, crossed = np.random.default_rng(5), 0.1, 0
    for _ in range(300):
        rates = np.where(random.random((2, 60)) < 0.15, random.random((2, 60)), 0.01)
        total = random.poisson(20, 60).astype(float)
        canary = Tries(total, random.binomial(total.astype(int), rates[0]).astype(float))
        stable = Tries(np.full(60, 180.0), random.binomial(180, rates[1]).astype(float))
        looks = (excess_in_blocks(canary.rows(slice(n)), stable.rows(slice(n))) for n in range(10, 61, 10))
        crossed += max(looks) >= -np.log(alpha)
    assert crossed <= 30


def test_what_is_slow_in_every_block_is_found_within_half_a_minute() -> None:
    blocks = np.full(14, 40.0)
    assert excess_in_blocks(Tries(blocks, blocks), Tries(blocks, 0 * blocks)) > np.log(1100)
    assert excess_in_blocks(Tries(), Tries()) == pytest.approx(0)

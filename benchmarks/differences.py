"""The difference of a rival's metric to ours, with a confidence interval.

Two kinds of chance are included: the test customers, and the random numbers of a fit. Each of 2,000
replicates draws customers with replacement, the same for both models, and for each model its seeds with
replacement. The spread over few seeds is too small by (S - 1) / S, so a draw's deviation from the mean of all
seeds is widened by the square root of S / (S - 1). A model that is the same for every seed has no such
chance.

A rival averaged over its seeds is one model of which no second one was trained. Its training variance is that
of the jackknife: pseudo-losses of each seed from the averages that leave one out (Efron & Tibshirani 1993,
chapter 11), centred on the average itself.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluate.bootstrap import Resampling, cluster_sums, resampled

Array = NDArray[np.float64]
RESAMPLES = 2000


@dataclass(frozen=True)
class Verdict:
    """Of the mean log-loss of a rival minus ours: above zero is in our favour."""

    difference: float
    low: float
    high: float

    @property
    def word(self) -> str:
        if self.low > 0:
            return "win"
        return "loss" if self.high < 0 else "tie"


def losses(churned: NDArray[np.int64], scores: Array) -> Array:
    """[S, N]: the log-loss of each seed's score of each row."""
    return np.asarray(-np.where(churned == 1, np.log(scores), np.log1p(-scores)))


def losses_of_average(churned: NDArray[np.int64], scores: Array) -> Array:
    """[S, N]: jackknife pseudo-losses of the average of the seeds' scores; their mean over S is its loss."""
    whole = losses(churned, scores.mean(axis=0, keepdims=True))
    seeds = len(scores)
    if seeds == 1:
        return whole
    without = losses(churned, (scores.sum(axis=0) - scores) / (seeds - 1))
    return whole + (seeds - 1) * (without.mean(axis=0) - without)


def compare(ours: Array, rival: Array, customer: NDArray[np.int64], seed: int = 0) -> Verdict:
    """From the losses [seeds, rows] of both; `customer` is 0, 1, ... of each row."""
    columns = np.column_stack([ours.T, rival.T, np.ones(len(customer))])
    totals = resampled(cluster_sums(customer, columns), Resampling(resamples=RESAMPLES, seed=seed))
    means = totals[:, :-1] / totals[:, -1:]
    draw = np.random.default_rng(seed)
    drawn = _with_seeds(means[:, len(ours) :], draw) - _with_seeds(means[:, : len(ours)], draw)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Verdict(float(rival.mean() - ours.mean()), float(low), float(high))


def _with_seeds(means: Array, draw: np.random.Generator) -> Array:
    """Of each replicate, the mean over seeds drawn with replacement."""
    replicates, seeds = means.shape
    centre = means.mean(axis=1)
    if seeds == 1:
        return centre
    chosen = draw.integers(0, seeds, size=(replicates, seeds))
    deviation = np.take_along_axis(means, chosen, axis=1).mean(axis=1) - centre
    return np.asarray(centre + np.sqrt(seeds / (seeds - 1)) * deviation)

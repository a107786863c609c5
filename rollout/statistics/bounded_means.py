"""Means of bounded numbers (scores, differences of scores, losses): always-valid tests and intervals.

The evidence is a capital that bets against "the mean is at most m" at fair odds: the product over data of 1 +
b(x/m - 1). With x in [0, 1] and a mean of at most m it is a supermartingale for any stake b in (0, 1), so its
average over a grid of stakes is an e-process (Waudby-Smith & Ramdas 2024, Estimating means of bounded random
variables by betting, JRSS-B 86: diversified Kelly betting on a grid). With constant stakes it is a function
of the data's histogram: each row is read once, and the order of rows has no influence.

Two means: let m be the unknown mean of stable under the null hypothesis. The capital against "canary's mean
is at most m + t" times the capital against "stable's mean is at least m" is an e-process. The smallest
product over all m is one for the whole null hypothesis. The first factor falls in m and the second rises, so
between two levels of m their product is at least the first at the upper level times the second at the lower
one. The smallest of these over the grid is therefore a lower bound, not an approximation. It holds for
mirrored windows too: their answers are positively dependent, which only makes the product smaller.

Assumed: within a window, the rows of a variant are independent and have one mean.
"""

from dataclasses import dataclass

import numpy as np

from rollout.statistics.e_values import Array, log_mean

STAKES = np.array([0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.5, 0.8])
"""The best stake is about m(mean - m)/variance: small for rare events and small excesses."""

BINS = 1024
"""Values are rounded to multiples of 1/BINS, each in the direction that weakens the evidence. The time of a
test then does not grow with the rows."""

SURE = 1e-12
"""Replaces a mean of exactly 0, by which the capital would divide."""


@dataclass(frozen=True)
class Histogram:
    """Values in [0, 1] and their counts; `counts` may have leading axes, one for each rollout."""

    values: Array
    """[V]"""
    counts: Array
    """[..., V]"""

    @classmethod
    def of(cls, data: Array, up: bool = False, bins: int = BINS) -> "Histogram":
        """Of numbers in [0, 1], rounded down (or up)."""
        # a rounding error of the caller must not move a number to the next bin
        steps = np.ceil(data * bins - 1e-9) if up else np.floor(data * bins + 1e-9)
        values, counts = np.unique(steps, return_counts=True)
        return cls(values / bins, counts.astype(np.float64))

    @classmethod
    def exact(cls, data: Array) -> "Histogram":
        """Of numbers in [0, 1] with few different values, not rounded."""
        values, counts = np.unique(data, return_counts=True)
        return cls(values, counts.astype(np.float64))

    @property
    def mirrored(self) -> "Histogram":
        """Of 1 - x."""
        return Histogram(1 - self.values, self.counts)

    @property
    def total(self) -> Array:
        return np.asarray(self.counts.sum(axis=-1))

    @property
    def mean(self) -> Array:
        """[...]; NaN where there are no values."""
        return np.asarray(
            np.divide(
                self.counts @ self.values,
                self.total,
                out=np.full(self.counts.shape[:-1], np.nan),
                where=self.total > 0,
            )
        )


def above(data: Histogram, means: Array) -> Array:
    """[..., M]: log capital against "the mean is at most m", for each m of `means` [M]. It falls in m."""
    fair = np.clip(means, SURE, 1.0)
    gain = data.values[:, None] / fair - 1  # [V, M]
    logs = np.log1p(STAKES[:, None, None] * gain)  # [B, V, M]
    capital = np.stack([data.counts @ one for one in logs])
    return log_mean(capital, np.full(len(STAKES), 1 / len(STAKES)))


def below(data: Histogram, means: Array) -> Array:
    """[..., M]: log capital against "the mean is at least m", for each m of `means` [M]. It rises in m."""
    return above(data.mirrored, 1 - means)


def excess_mean(canary: Histogram, stable: Histogram, tolerance: float) -> Array:
    """[...]: log e-value against mean(canary) <= mean(stable) + tolerance.

    Where values are rounded, the caller rounds the canary's down and stable's up.
    """
    levels = _levels(canary, stable, tolerance)
    over = above(canary, levels[1:] + tolerance)
    under = below(stable, levels[:-1])
    return np.asarray((over + under).min(axis=-1))


def _levels(canary: Histogram, stable: Histogram, tolerance: float) -> Array:
    """[M] ascending from 0 to 1, with a finer grid where the smallest product is expected."""
    means = np.concatenate([np.ravel(stable.mean), np.ravel(canary.mean) - tolerance])
    means = means[np.isfinite(means)]
    low, high = (means.min(), means.max()) if len(means) else (0.0, 1.0)
    room = 0.1 * (high - low) + 1e-3
    near = np.linspace(max(low - room, 0.0), min(high + room, 1.0), 49)
    return np.union1d(np.linspace(0, 1, 17), near)


def mean_interval(data: Array, alpha: float) -> tuple[float, float]:
    """A confidence sequence of the mean of numbers in [0, 1]: with probability 1 - alpha it contains the mean
    at all times. Each side spends half of alpha. (0, 1) without data.
    """
    if not len(data):
        return 0.0, 1.0
    down, up = Histogram.of(data), Histogram.of(data, up=True)
    return _crossing(down, alpha), 1.0 - _crossing(up.mirrored, alpha)


def _crossing(data: Histogram, alpha: float) -> float:
    """The largest m for which "the mean is at most m" is rejected; 0 if there is none."""
    low, high = 0.0, float(data.mean)
    for _ in range(40):
        middle = (low + high) / 2
        if above(data, np.array([middle]))[0] >= np.log(2 / alpha):
            low = middle
        else:
            high = middle
    return low


def difference_interval(canary: Array, stable: Array, alpha: float) -> tuple[float, float]:
    """A confidence sequence of mean(canary) - mean(stable), both of numbers in [0, 1]; (-1, 1) without data.

    It contains the differences that `excess_mean` does not reject, with half of alpha for each side.
    """
    if not len(canary) or not len(stable):
        return -1.0, 1.0
    down, up = Histogram.of(canary), Histogram.of(canary, up=True)
    stable_down, stable_up = Histogram.of(stable), Histogram.of(stable, up=True)
    return _least(down, stable_up, alpha), -_least(stable_down, up, alpha)


def _least(canary: Histogram, stable: Histogram, alpha: float) -> float:
    """The largest d for which mean(canary) <= mean(stable) + d is rejected; -1 if there is none."""
    low, high = -1.0, float(canary.mean - stable.mean)
    for _ in range(20):
        middle = (low + high) / 2
        if excess_mean(canary, stable, middle) >= np.log(2 / alpha):
            low = middle
        else:
            high = middle
    return low

"""Tests the condition of an estimate without labels: that a score means the same at all moments.

The estimate carries the calibration of matured moments over to now, and its interval allows for levels that
differ between moments at random. It is wrong where the calibration drifts: then the moments of now are unlike
the matured ones, and no number of matured rows shows by how much. But who returns within the first days after
a moment is known soon. So all moments, matured or not, are compared on the same outcome: no return within
`days` days. With moments at least that far from each other, these outcomes are of different periods.

At each moment the calibration is described by two numbers, a level and a slope in log-odds around a
calibrator of all moments together. Under the condition either is a sequence of independent numbers of one
distribution. Two t-tests look at each: of a trend over time, and of the newest number against the others.
They are exact for normal numbers. With the four of them at a quarter of the rate (Bonferroni), a condition
that holds is doubted in at most a share `rate` of the checks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import linregress
from scipy.stats import t as student

from monitoring.performance.estimate import Calibrator

Floats = NDArray[np.float64]

LEAST_MOMENTS = 4
"""With fewer, a t-test of the newest moment would have less than two degrees of freedom."""

SCORE_BINS = 200
"""Quantile bins of the score in which rows are counted for the calibrator of all moments."""


@dataclass(frozen=True)
class Stability:
    """Whether a score has meant the same at all moments."""

    moments: int
    p_value: float
    """The smallest of the four p-values times four, at most 1; NaN with fewer than LEAST_MOMENTS moments."""
    levels: Floats
    """[moments] in log-odds, around the calibrator of all moments."""
    slopes: Floats
    """[moments]: of the log-odds of the score; 0 is the slope of all moments together."""

    def doubted(self, rate: float) -> bool:
        """Whether the condition is doubted, which it is in a share `rate` of checks where it holds. Too few
        moments are a doubt."""
        return not self.p_value > rate


def stability(score: Floats, stayed_away: Floats, moment: NDArray[np.int64], times: Floats) -> Stability:
    """Compares the moments on an outcome that is known for all of them.

    `score` and `stayed_away` (0 or 1) are [B]; `moment` [B] is the number of the moment of each row, and
    `times` [moments] are ascending, in any unit. A moment at which all customers had one outcome is left out.
    """
    number = len(times)
    if number < LEAST_MOMENTS:
        return Stability(number, np.nan, np.zeros(0), np.zeros(0))
    edges = np.unique(np.quantile(score, np.linspace(0, 1, SCORE_BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, score)
    rows = np.bincount(bins, minlength=len(edges) + 1).astype(np.float64)
    centres = np.bincount(bins, score, len(rows)) / np.maximum(rows, 1)
    labels = np.bincount(bins, stayed_away, len(rows)).astype(np.float64)
    used = rows > 0
    together = Calibrator.fit(centres[used], labels[used], rows[used])
    z = together.log_odds(score)
    c = expit(z)
    levels, slopes = np.full(number, np.nan), np.full(number, np.nan)
    middle = float(np.average(z, weights=c * (1 - c)))
    for one in range(number):
        mine = moment == one
        if 0 < stayed_away[mine].sum() < mine.sum():
            levels[one], slopes[one] = _deviation(z[mine] - middle, c[mine], stayed_away[mine])
    known = np.isfinite(levels)
    if known.sum() < LEAST_MOMENTS:
        return Stability(int(known.sum()), np.nan, levels[known], slopes[known])
    levels, slopes, times = levels[known], slopes[known], times[known]
    tests = [test for values in (levels, slopes) for test in (_trend(times, values), _newest(values))]
    return Stability(len(levels), min(1.0, len(tests) * min(tests)), levels, slopes)


def _deviation(z: Floats, c: Floats, outcome: Floats) -> Floats:
    """[2]: level and slope by one Newton step of a logistic regression from the calibrator of all moments."""
    basis = np.column_stack([np.ones(len(z)), z])
    curvature = (basis * (c * (1 - c))[:, None]).T @ basis + 1e-9 * np.eye(2)
    return np.asarray(np.linalg.solve(curvature, basis.T @ (outcome - c)))


def _trend(times: Floats, values: Floats) -> float:
    """Two-sided p-value of a straight line over time; two degrees of freedom less than there are moments."""
    if np.ptp(values) == 0:
        return 1.0
    return float(linregress(times, values).pvalue)


def _newest(values: Floats) -> float:
    """Two-sided p-value of the newest value against a prediction interval of the others."""
    others = values[:-1]
    spread = float(np.std(others, ddof=1)) * np.sqrt(1 + 1 / len(others))
    if spread == 0:
        return float(values[-1] == others[0])
    return float(2 * student.sf(abs(values[-1] - others.mean()) / spread, len(others) - 1))

"""Kayenta's judgement of an error count (NetflixACAJudge-v1.0), over thousands of rollouts at once.

A metric has a value a moment of time, for the canary and for a baseline of the same size and traffic. A run
fails where the Mann-Whitney confidence interval (98 %) of the shift between the two is above a quarter of
the estimated shift (Hodges-Lehmann), and the ratio of the means is at least `allowedIncrease` (1 by default);
direction `increase`, critical, so that one failed run rolls back. Runs look at all data since the beginning,
the default. From MannWhitneyClassifier.scala, MannWhitney.scala and NetflixACAJudge.scala at a69573b, and
https://spinnaker.io/docs/guides/user/canary/judge/; "at least 50 pieces of time series data per metric" and
"same size of deployment" from https://spinnaker.io/docs/guides/user/canary/best-practices/.

To its favour: the baseline is there in every stage, weight 100 too; a moment is so many requests, as many as
let it catch harm soonest; a run every 50 moments. Tuned, it may run every 5 (against that advice), and
`allowedIncrease` is the lowest that holds the false alarms at alpha. Counts are whole numbers, so that both
ends of the interval are: ties are decided exactly, where the original's root finder leaves them to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks.threshold_rules import Checks, bound_of, stopped

Array = NDArray[np.float64]

TOLERANCE, CONFIDENCE = 0.25, 0.98
MOMENT_SIZES = (10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 125, 150, 200)
"""Requests to each of the two in a moment of time."""
ADVISED = 50
MOMENTS = (5, 7, 10, 15, 20, 30, 50)
"""Between two runs."""
ANY_INCREASE = float(np.nextafter(1.0, 0.0))


@dataclass(frozen=True)
class Judge:
    """A setting of Kayenta."""

    size: int
    moments: int
    allowed_increase: float
    """The ratio of means has to be above it."""


@dataclass(frozen=True)
class Errors:
    """[rollouts, moments] of each of the two, for one size of a moment."""

    size: int
    canary: NDArray[np.int16]
    baseline: NDArray[np.int16]


def simulated(rates: tuple[float, float], requests: int, size: int, rollouts: int, seed: int) -> Errors:
    """`rates`: of errors, on the canary and on the baseline; `requests` of the canary in the whole plan."""
    random = np.random.default_rng([seed, size])
    shape = rollouts, requests // size
    return Errors(size, *(random.binomial(size, rate, shape).astype(np.int16) for rate in rates))


def runs(errors: Errors, moments: int) -> Checks:
    """A run after every so many moments: its ratio of means where the test finds an increase."""
    rollouts, total = errors.canary.shape
    ends = range(moments, total + 1, moments)
    most = int(max(errors.canary.max(), errors.baseline.max()))
    canary, baseline = np.zeros((2, rollouts, most + 1))
    ratios, begin = [], 0
    for end in ends:
        canary = canary + _histogram(errors.canary[:, begin:end], most)
        baseline = baseline + _histogram(errors.baseline[:, begin:end], most)
        ratios.append(np.where(increased(canary, baseline), _ratio(canary, baseline), -np.inf))
        begin = end
    done = np.broadcast_to(np.array([float(end * errors.size) for end in ends]), (rollouts, len(ratios)))
    return Checks(np.stack(ratios, axis=1), done)


def _histogram(counts: NDArray[np.int16], most: int) -> Array:
    return np.stack([(counts == value).sum(axis=1) for value in range(most + 1)], axis=1).astype(float)


def _ratio(canary: Array, baseline: Array) -> Array:
    values = np.arange(canary.shape[1])
    means = canary @ values, baseline @ values
    # a mean of zero leaves no ratio, and then the size of the effect is not tested
    return np.where(means[1] > 0, means[0] / np.maximum(means[1], 1e-9), np.inf)


def increased(canary: Array, baseline: Array) -> NDArray[np.bool_]:
    """[rollouts] of histograms [rollouts, values]: is the lower end above the tolerated part of the shift?"""
    most = canary.shape[1] - 1
    z = _scores(canary, baseline)  # at shifts of -most - 1/2, ..., most + 1/2, falling
    lower = (z > norm.ppf(1 - (1 - CONFIDENCE) / 2)).sum(axis=1) - most - 1
    shift = (z > 0).sum(axis=1) - most - 1
    return np.asarray(lower > TOLERANCE * np.abs(shift))


def _scores(canary: Array, baseline: Array) -> Array:
    """[rollouts, shifts]: Mann-Whitney's score of the canary less a shift, corrected for continuity, ties."""
    n, m = canary.sum(axis=1, keepdims=True), baseline.sum(axis=1, keepdims=True)
    width = canary.shape[1]
    equal = np.zeros((len(canary), 2 * width - 1))
    for value in range(width):  # pairs by their difference, -most to most
        equal[:, width - 1 - value : 2 * width - 1 - value] += canary * baseline[:, value, None]
    above = np.concatenate([equal[:, ::-1].cumsum(axis=1)[:, ::-1], np.zeros((len(canary), 1))], axis=1)
    ties = (canary**3 - canary + baseline**3 - baseline).sum(axis=1, keepdims=True)
    deviation = np.sqrt(n * m / 12 * (n + m + 1 - ties / ((n + m) * (n + m - 1))))
    z = above - n * m / 2
    return np.asarray((z - np.sign(z) / 2) / np.maximum(deviation, 1e-12))


def took(errors: Errors, judge: Judge) -> Array:
    """[rollouts]: canary requests until the rollback; inf: none."""
    return stopped(runs(errors, judge.moments), 1, False, judge.allowed_increase)


def documented(harmful: Sequence[Errors]) -> Judge:
    """Defaults and the advised number of moments, with the size of a moment that catches soonest."""
    judges = [Judge(one.size, ADVISED, ANY_INCREASE) for one in harmful if one.canary.shape[1] >= ADVISED]
    by_size = {one.size: one for one in harmful}
    return min(judges, key=lambda judge: _rank(took(by_size[judge.size], judge)))


def tuned(null: Sequence[Sequence[Errors]], harmful: Sequence[Errors], alpha: float) -> Judge:
    """The quickest of all sizes, moments and increases that keeps `alpha` at each rate.

    `null`: of each rate, one for each size of a moment, in the order of `harmful`.
    """
    found = []
    for number, harm in enumerate(harmful):
        for moments in (moments for moments in MOMENTS if moments <= harm.canary.shape[1]):
            bounds = [bound_of(runs(one[number], moments).statistic, 1, False, alpha) for one in null]
            judge = Judge(harm.size, moments, max(ANY_INCREASE, *bounds))
            found.append((_rank(took(harm, judge)), judge))
    return min(found, key=lambda one: one[0])[1]


def _rank(requests: Array) -> tuple[float, float]:
    """By the median, and where that is never by the share that is caught."""
    return float(np.median(requests)), -float(np.isfinite(requests).mean())

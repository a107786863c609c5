"""Metrics of scored rows with labels, with intervals from a bootstrap of customers.

Every metric is a function of sums over rows, so that a draw of customers is a vector of counts and all draws
are one matrix product (training/evaluate/bootstrap.py). AUROC is not a sum. Its draws use its first-order
expansion: each positive row contributes the share of negatives below it, and each negative row the share of
positives above it (the placement values of DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44; for clusters
Obuchowski 1997, Biometrics 53).
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from training.config import DecisionConfig
from training.decision_value import expected_profit
from training.evaluate.bootstrap import MOST_CLUSTERS, Resampling, resampled
from training.learn.metrics import ECE_BINS, calibration_bins, calibration_error, log_losses

Floats = NDArray[np.float64]

TOP = 0.1
"""Share of the customers with the largest scores, for the lift."""

RESAMPLES = Resampling(resamples=400)


@dataclass(frozen=True)
class Scores:
    """Scored rows with known labels, [B] each."""

    customer: NDArray[np.int64]
    """Cluster of each row, from 0 on without gaps."""
    score: Floats
    churned: NDArray[np.int64]
    value: Floats | None = None
    """Value of each customer; None: the one value of the config."""

    def rows(self, which: NDArray[np.bool_]) -> "Scores":
        """The rows of a segment."""
        _, customer = np.unique(self.customer[which], return_inverse=True)
        value = None if self.value is None else self.value[which]
        return Scores(customer.astype(np.int64), self.score[which], self.churned[which], value)


@dataclass(frozen=True)
class Estimate:
    """A metric and its 95 % interval; all NaN where the metric is not defined."""

    value: float
    low: float
    high: float


UNDEFINED = Estimate(np.nan, np.nan, np.nan)


def clusters(customer: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The cluster of each row from hashes of customers [B]. More customers than the bootstrap distinguishes
    are merged by their hash, without a table of them."""
    if len(customer) > 4 * MOST_CLUSTERS:
        return np.asarray(customer % np.uint64(MOST_CLUSTERS)).astype(np.int64)
    return np.unique(customer, return_inverse=True)[1].astype(np.int64)


def measured(scores: Scores, decision: DecisionConfig, how: Resampling = RESAMPLES) -> dict[str, Estimate]:
    """Metric -> estimate. Metrics that need both classes are undefined where there is one class only.

    `log_loss_nats`, `auroc`, `ece` (expected calibration error, plug-in), `lift` (churn rate of the TOP share
    with the largest scores over that of all), `profit` (for each customer, of offers to those for whom an
    offer is expected to pay) and `churn_rate`.
    """
    if not len(scores.score):
        return dict.fromkeys(METRICS, UNDEFINED)
    sums = _sums(scores, decision)
    total, drawn = sums.sum(axis=0), resampled(sums, how)
    one_class = scores.churned.min() == scores.churned.max()
    result = {}
    for name, statistic in METRICS.items():
        if one_class and name in ("auroc", "lift"):
            result[name] = UNDEFINED
            continue
        with np.errstate(divide="ignore", invalid="ignore"):  # a draw may have one class only
            value, draws = float(statistic(total)), statistic(drawn)
        result[name] = _estimate(name, value, draws, how.confidence)
    return result


def _estimate(name: str, value: float, draws: Floats, confidence: float) -> Estimate:
    if name == "ece":
        # a mean of absolute values is biased upwards, and in the draws twice: as in `bootstrap.upper_bound`
        reach = NormalDist().inv_cdf((1 + confidence) / 2) * float(np.std(draws))
        return Estimate(value, max(value - reach, 0.0), value + reach)
    if name == "auroc":
        draws = 2 * draws - value
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def placements(score: Floats, churned: NDArray[np.int64]) -> Floats:
    """[B]: of a positive row the share of negatives with a smaller score, of a negative row the share of
    positives with a larger one; ties count half. The mean over either class is AUROC.

    By ranks in O(B log B) (Sun & Xu 2014, IEEE Signal Processing Letters 21).
    """
    positive = churned == 1
    ranks = rankdata(score)
    within = np.empty(len(score))
    within[positive] = rankdata(score[positive])
    within[~positive] = rankdata(score[~positive])
    others = np.where(positive, (~positive).sum(), positive.sum())
    smaller = (ranks - within) / np.maximum(others, 1)
    return np.asarray(np.where(positive, smaller, 1 - smaller))


def _sums(scores: Scores, decision: DecisionConfig) -> Floats:
    """[clusters, 8 + ECE_BINS] in the order that METRICS reads; one column of rows is in memory at a time."""
    y, p = scores.churned.astype(np.float64), scores.score
    customers = int(scores.customer.max()) + 1

    def summed(column: Floats | None) -> Floats:
        return np.asarray(np.bincount(scores.customer, column, customers), dtype=np.float64)

    placed = placements(p, scores.churned)
    top = (p >= np.quantile(p, 1 - TOP)).astype(np.float64)
    offered = expected_profit(p, decision, scores.value) > 0
    profit = np.where(offered, expected_profit(y, decision, scores.value), 0.0)
    columns = [None, y, log_losses(scores.churned, p), placed * y, placed * (1 - y), top, top * y, profit]
    cells = scores.customer * ECE_BINS + calibration_bins(p)
    gaps = np.bincount(cells, p - y, customers * ECE_BINS).reshape(customers, ECE_BINS)
    return np.column_stack([*(summed(column) for column in columns), gaps])


def _auroc(s: Floats) -> Floats:
    """The mean of the two terms, each of which is AUROC at the total. In a draw their deviations add up, so
    that the deviation of their mean is doubled in `_estimate`."""
    positives, negatives = s[..., 1], s[..., 0] - s[..., 1]
    return np.asarray((s[..., 3] / positives + s[..., 4] / negatives) / 2)


METRICS: dict[str, Callable[[Floats], Floats]] = {
    "log_loss_nats": lambda s: s[..., 2] / s[..., 0],
    "auroc": _auroc,
    "ece": lambda s: calibration_error(s[..., 8:], s[..., 0]),
    "lift": lambda s: (s[..., 6] / s[..., 5]) / (s[..., 1] / s[..., 0]),
    "profit": lambda s: s[..., 7] / s[..., 0],
    "churn_rate": lambda s: s[..., 1] / s[..., 0],
}

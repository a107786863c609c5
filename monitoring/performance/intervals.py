"""Metrics of scored rows with labels, with intervals from a bootstrap of customers.

Every metric is a function of sums over rows, so that a draw of customers is a vector of counts and all draws
are one matrix product (training/evaluate/bootstrap.py). AUROC is not a sum. Its draws use its first-order
expansion: each positive row contributes the share of negatives below it, and each negative row the share of
positives above it (the placement values of DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44; for clusters
Obuchowski 1997, Biometrics 53).

Rows are added in batches by ascending score, so that ranks are running counts and only the sums of the
clusters are in memory.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from training.config import DecisionConfig
from training.decision_value import expected_profit
from training.evaluate.bootstrap import Resampling, resampled
from training.learn.metrics import ECE_BINS, calibration_bins, calibration_error, log_losses

Floats = NDArray[np.float64]

TOP = 0.1
"""Share of the customers with the largest scores, for the lift."""

RESAMPLES = Resampling(resamples=400)


@dataclass(frozen=True)
class Scores:
    """Scored rows with known labels, [B] each."""

    customer: NDArray[np.int64]
    """Cluster of each row, from 0 on."""
    score: Floats
    churned: NDArray[np.int64]
    value: Floats | None = None
    """Value of each customer; None: the one value of the config."""

    def rows(self, which: NDArray[np.int64] | slice) -> "Scores":
        """Some of the rows."""
        value = None if self.value is None else self.value[which]
        return Scores(self.customer[which], self.score[which], self.churned[which], value)

    def sorted(self) -> "Scores":
        """The rows by ascending score."""
        return self.rows(np.argsort(self.score, kind="stable"))


@dataclass(frozen=True)
class Total:
    """What has to be known of all rows before the first of them is added."""

    rows: int
    positives: int
    clusters: int

    @classmethod
    def of(cls, scores: Scores) -> "Total":
        """Of rows that are all in memory."""
        return cls(len(scores.score), int(scores.churned.sum()), int(scores.customer.max(initial=-1)) + 1)


@dataclass(frozen=True)
class Estimate:
    """A metric and its 95 % interval; all NaN where the metric is not defined."""

    value: float
    low: float
    high: float


UNDEFINED = Estimate(np.nan, np.nan, np.nan)


def measured(
    batches: Iterable[Scores],
    total: Total,
    decision: DecisionConfig,
    only_present: bool = False,
    how: Resampling = RESAMPLES,
) -> dict[str, Estimate]:
    """Metric -> estimate. Metrics that need both classes are undefined where there is one class only.

    `batches` have all rows by ascending score. With `only_present`, clusters without a row are no part of the
    population that is drawn from: the rows are those of a segment.

    `log_loss_nats`, `auroc`, `ece` (expected calibration error, plug-in), `lift` (churn rate of the TOP share
    with the largest scores over that of all), `profit` (for each customer, of offers to those for whom an
    offer is expected to pay) and `churn_rate`.
    """
    if not total.rows:
        return dict.fromkeys(METRICS, UNDEFINED)
    of_clusters = _Sums(total, decision)
    for batch in whole_ties(batches):
        of_clusters.add(batch)
    sums = of_clusters.table[of_clusters.table[:, 0] > 0] if only_present else of_clusters.table
    whole, drawn = sums.sum(axis=0), resampled(sums, how)
    one_class = total.positives in (0, total.rows)
    result = {}
    for name, statistic in METRICS.items():
        if one_class and name in ("auroc", "lift"):
            result[name] = UNDEFINED
            continue
        with np.errstate(divide="ignore", invalid="ignore"):  # a draw may have one class only
            value, draws = float(statistic(whole)), statistic(drawn)
        result[name] = _estimate(name, value, draws, how.confidence)
    return result


def whole_ties(batches: Iterable[Scores]) -> Iterator[Scores]:
    """The same rows, which are sorted by score, in batches that do not end between rows of one score."""
    waiting: list[Scores] = []
    for batch in batches:
        end = int(np.searchsorted(batch.score, batch.score[-1])) if len(batch.score) else 0
        if end or (waiting and len(batch.score) and waiting[-1].score[-1] != batch.score[0]):
            yield _joined([*waiting, batch.rows(slice(0, end))])
            waiting = []
        waiting.append(batch.rows(slice(end, None)))
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[Scores]) -> Scores:
    values = [part.value for part in parts if part.value is not None]
    return Scores(
        np.concatenate([part.customer for part in parts]),
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.churned for part in parts]),
        np.concatenate(values) if values else None,
    )


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


class Placements:
    """Placement values of rows that arrive by ascending score.

    That of a positive row is the share of negatives with a smaller score, that of a negative row the share of
    positives with a larger one; ties count half. The mean over either class is AUROC (Sun & Xu 2014, IEEE
    Signal Processing Letters 21).
    """

    def __init__(self, total: Total) -> None:
        self._total = total
        self._rows = self._positives = 0
        place = (1 - TOP) * (total.rows - 1)
        self._place, self._between = int(place), place > int(place)

    def add(self, score: Floats, churned: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Placement values [B], and 1 for each row whose score is at least the quantile 1 - TOP, else 0.

        Rows of one score are added together.
        """
        first = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])
        ties = np.diff(np.r_[first, len(score)])
        positive = np.add.reduceat(churned, first)
        end, positives = self._rows + np.cumsum(ties), self._positives + np.cumsum(positive)
        self._rows, self._positives = int(end[-1]), int(positives[-1])
        smaller = (end - ties) - (positives - positive) + (ties - positive) / 2  # negatives
        larger = self._total.positives - positives + positive / 2
        negatives = self._total.rows - self._total.positives
        of_positive = np.repeat(smaller / max(negatives, 1), ties)
        of_negative = np.repeat(larger / max(self._total.positives, 1), ties)
        # the quantile is between the rows `place` and `place` + 1, or it is the score of the first of them
        is_top = (end - 1 > self._place) | ((end - 1 == self._place) & (not self._between))
        placed = np.where(churned == 1, of_positive, of_negative)
        return placed, np.repeat(is_top, ties).astype(np.float64)


class _Sums:
    """[clusters, 8 + ECE_BINS] in the order that METRICS reads."""

    def __init__(self, total: Total, decision: DecisionConfig) -> None:
        self.table = np.zeros((total.clusters, 8 + ECE_BINS))
        self._decision, self._placements = decision, Placements(total)

    def add(self, batch: Scores) -> None:
        """Add rows that continue those before by ascending score."""
        p, y = batch.score, batch.churned.astype(np.float64)
        placed, top = self._placements.add(p, batch.churned)
        offered = expected_profit(p, self._decision, batch.value) > 0
        profit = np.where(offered, expected_profit(y, self._decision, batch.value), 0.0)
        columns = [None, y, log_losses(batch.churned, p), placed * y, placed * (1 - y), top, top * y, profit]
        clusters = len(self.table)
        for number, column in enumerate(columns):
            self.table[:, number] += np.bincount(batch.customer, column, clusters)
        cells = batch.customer * ECE_BINS + calibration_bins(p)
        self.table[:, 8:] += np.bincount(cells, p - y, clusters * ECE_BINS).reshape(clusters, ECE_BINS)


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

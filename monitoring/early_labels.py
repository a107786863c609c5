"""What is known of a model's performance long before the horizon: customers who have returned have not
churned.

A label of 90 days is complete after 90 days, but a customer who returns after a week has revealed it. So each
check looks at the step since the check before: which of the customers who were scored then have returned? A
step of calendar time is used once, so the steps of a history are consecutive and share no purchase.

Two questions are separate, because their causes and their remedies differ:

- `level`: are there as many returns as the scores promised? Seasons move this number for every model.
- `avoidable_loss`: do the scores still order customers as well as a model can that is fitted to the step
  before? The champion's log-odds are first moved by one number so that they fit that step, so that a season,
  which both models meet, cancels. What remains is a change of P(y|x) that a retrained model would not
  have.
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq

from core.errors import MonitoringError
from features.spec import FeaturesConfig
from rollout.statistics.bounded_means import Histogram, above
from training.evaluate.baselines import Task, logistic_regression
from training.learn.inputs import Inputs
from training.learn.metrics import log_losses

Floats = NDArray[np.float64]

SCORE_BINS = 10
"""Quantile bins of the score within which customers return at the same pace."""

MOST_NATS = 4.0
"""A return that the champion all but excluded costs that much more than with a fresh model, and is evidence.
"""

LOSS_BINS = 1 << 16
"""Differences of losses are rounded to multiples of 2 * MOST_NATS / LOSS_BINS, far below the tolerance."""

LARGEST_SHIFT = 30.0
"""Of log-odds: from a probability of 1e-9 to one of 1 - 1e-4."""

Z = 1.96
"""Standard normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True)
class Cohort:
    """All customers that were scored at one check, and when they returned. Arrays have a row a customer."""

    inputs: pd.DataFrame
    """The champion's inputs, one column each."""
    churn: Floats
    """The champion's probability that the customer does not return within the horizon."""
    return_days: Floats
    """Days until the first purchase after the check; NaN for a customer who has not returned yet."""

    def returned(self, days: float) -> NDArray[np.bool_]:
        """Whether each customer returned within so many days."""
        return np.asarray(self.return_days <= days)


@dataclass(frozen=True)
class ReturnCurve:
    """Share of the promised returns that arrive within a step, by bins of the score."""

    edges: Floats
    """Inner edges of the bins, ascending."""
    shares: Floats
    """[len(edges) + 1]"""
    days: float
    """Length of the step."""

    @classmethod
    def fit(cls, matured: Cohort, days: float) -> Self:
        """From customers whose horizon has passed. Raises MonitoringError if none of them returned."""
        if not matured.returned(days).any():
            raise MonitoringError(
                f"early labels: none of {len(matured.churn)} customers returned within {days:g} days; "
                "choose a longer step"
            )
        edges = np.unique(np.quantile(matured.churn, np.linspace(0, 1, SCORE_BINS + 1)[1:-1]))
        bins = np.searchsorted(edges, matured.churn)
        returned = np.bincount(bins, weights=matured.returned(days), minlength=len(edges) + 1)
        promised = np.bincount(bins, weights=1 - matured.churn, minlength=len(edges) + 1)
        overall = returned.sum() / promised.sum()
        shares = np.divide(returned, promised, out=np.full(len(promised), overall), where=promised > 0)
        return cls(edges, shares, days)

    def probability(self, churn: Floats) -> Floats:
        """Probability [B] that a customer with this score returns within the step."""
        expected = (1 - churn) * self.shares[np.searchsorted(self.edges, churn)]
        return np.clip(expected, 0.0, 1.0)


@dataclass(frozen=True)
class Level:
    """Returns of one step against those that the scores promised."""

    returned: int
    promised: float
    ratio: float
    low: float
    high: float
    """95 % interval of the ratio, for customers who return independently of each other."""


def level(cohort: Cohort, curve: ReturnCurve) -> Level:
    """Compares the returns within the curve's step with the promised ones."""
    expected = curve.probability(cohort.churn)
    returned, promised = int(cohort.returned(curve.days).sum()), float(expected.sum())
    error = float(np.sqrt((expected * (1 - expected)).sum()))
    low, high = ((returned + side * Z * error) / promised for side in (-1, 1))
    return Level(returned, promised, returned / promised, max(low, 0.0), high)


@dataclass(frozen=True)
class Avoidable:
    """How much of the champion's loss a fresh model would avoid, on the customers of one step."""

    champion: Floats
    """Log-loss [B] of the recalibrated champion, in nats."""
    fresh: Floats
    """Log-loss [B] of the fresh model."""
    base_loss: float
    """Loss of the constant prediction on the step before, in nats: the unit of the tolerance."""

    @property
    def mean(self) -> float:
        """Avoidable loss in nats a customer."""
        return float(np.mean(self.champion - self.fresh))

    def log_e_value(self, tolerance: float) -> float:
        """Log e-value against "on average at most `tolerance` times the base loss is avoidable".

        A difference of one customer counts with at most MOST_NATS, so that few customers cannot decide.
        """
        return log_e_of_loss(self.champion - self.fresh, tolerance * self.base_loss)


def log_e_of_loss(differences: Floats, bound: float) -> float:
    """Log e-value of differences of losses [B], in nats, against "their mean is at most `bound`".

    Each difference is cut to MOST_NATS.
    """
    data = Histogram.of(scaled(differences), bins=LOSS_BINS)
    return float(above(data, scaled(np.array([bound])))[0])


def scaled(differences: Floats) -> Floats:
    """Differences of losses in nats, cut to MOST_NATS, on a scale from 0 to 1: 0 nats are 0.5."""
    return np.asarray((np.clip(differences, -MOST_NATS, MOST_NATS) + MOST_NATS) / (2 * MOST_NATS))


def avoidable_loss(
    before: Cohort, now: Cohort, curve: ReturnCurve, spec: FeaturesConfig, seed: int = 0
) -> Avoidable:
    """Compares the recalibrated champion and a fresh model on the customers of `now`.

    Both are fitted to the step that began at `before` and predict who of `now` returns within the next one.
    The fresh model is a logistic regression on the champion's inputs. Raises MonitoringError if all or none
    of the customers returned in the step before, since no model can be fitted to one outcome.
    """
    returned = before.returned(curve.days)
    if returned.all() or not returned.any():
        raise MonitoringError("early labels: the step before has one outcome only; choose a longer step")
    outcome = now.returned(curve.days).astype(np.int64)
    # the fresh model predicts who does not return, as the champion does
    fresh = 1 - _fresh(before, now, returned, curve, spec, seed)
    recalibrated = _recalibrated(curve.probability(before.churn), returned, curve.probability(now.churn))
    rate = float(returned.mean())
    base_loss = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    return Avoidable(log_losses(outcome, recalibrated), log_losses(outcome, fresh), base_loss)


def _fresh(
    before: Cohort,
    now: Cohort,
    returned: NDArray[np.bool_],
    curve: ReturnCurve,
    spec: FeaturesConfig,
    seed: int,
) -> Floats:
    train = before.inputs.assign(churned=(~returned).astype(np.int64))
    inputs = Inputs.learn(train, spec)
    # a task's label may be any 0/1 outcome, and only BG/NBD reads the records
    task = Task(train, now.inputs, inputs, timedelta(days=curve.days), records=Path(), seed=seed)
    return logistic_regression(task)


def _recalibrated(before: Floats, returned: NDArray[np.bool_], now: Floats) -> Floats:
    """The log-odds of `now`, moved so that the step before would have had the right number of returns."""
    rate = float(returned.mean())
    shift = brentq(lambda moved: float(_moved(before, moved).mean()) - rate, -LARGEST_SHIFT, LARGEST_SHIFT)
    return _moved(now, float(shift))


def _moved(probability: Floats, shift: float) -> Floats:
    p = np.clip(probability, 1e-9, 1 - 1e-9)
    return np.asarray(1 / (1 + (1 - p) / p * np.exp(-shift)))

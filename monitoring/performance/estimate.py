"""Performance estimated without labels, with intervals, and whether the estimate can be trusted.

A calibrator turns scores into churn probabilities c. It is fitted to predictions whose horizon has passed and
that are not training rows, each weighted by how much more frequent such a customer is now (PAPE: Bialek et
al. 2024, arXiv 2401.08348; Kivimaki et al. 2025, arXiv 2505.05295). With independent outcomes of probability
c the expected log-loss, AUROC and profit of the scores follow. It is beta calibration (Kull et al. 2017,
AISTATS): a logistic regression on ln p and -ln(1-p).

The interval has three parts, which are drawn together:

- the calibrator, by drawing customers of the matured rows again;
- the period: the level of churn differs between moments for all customers at once. Each draw moves all
  log-odds by a number from Student's t distribution with the spread of the matured moments and one degree of
  freedom less than there are (a prediction interval of a random effect: Higgins, Thompson & Spiegelhalter
  2009, JRSS-A 172);
- the outcomes: independent draws of 0 and 1 with probability c, so that counts are Poisson-binomial.

The estimate is wrong if what the inputs say about churn has changed, which no score can show. So it is marked
untrusted when labels, early or late, give evidence of that, and where matured rows are too few, too old, or
unlike those of now.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import t as student

from monitoring.performance.intervals import Estimate
from training.config import DecisionConfig
from training.decision_value import expected_profit

Floats = NDArray[np.float64]

DRAWS = 200
BINS = 400
"""Quantile bins of the score in which matured rows are counted, and bins of those to be estimated: the time
of a draw does not grow with the rows."""
RIDGE = 1e-3
"""Of the calibrator's Newton steps, so that bins of one outcome have a finite solution."""
CLIP = 1e-6
LARGEST_STEP = 1.0
"""Of a coefficient in one of the calibrator's Newton steps."""


@dataclass(frozen=True)
class Matured:
    """Predictions with known labels that are not training rows, [B]."""

    customer: NDArray[np.int64]
    """From 0 on without gaps."""
    moment: NDArray[np.int64]
    """Number of the moment of each row, from 0 on without gaps."""
    score: Floats
    churned: Floats
    weight: Floats
    """How much more frequent such a customer is now than in these rows; a mean of 1."""


@dataclass(frozen=True)
class Calibrator:
    """log-odds = a + b ln p - c ln(1 - p)."""

    coefficients: Floats
    """[..., 3]"""

    @classmethod
    def fit(cls, score: Floats, churned: Floats, rows: Floats, steps: int = 25) -> "Calibrator":
        """By Newton's method. `score` [S]; `churned` and `rows` [..., S]: weighted sums of labels and rows.

        Leading axes are fitted at once. Fits are pulled towards the identity by RIDGE.
        """
        basis = _basis(score)  # [S, 3]
        start = np.array([0.0, 1.0, 1.0])
        beta = np.broadcast_to(start, (*rows.shape[:-1], 3)).copy()
        scale = np.maximum(rows.sum(axis=-1), 1e-12)[..., None]
        for _ in range(steps):
            p = expit(beta @ basis.T)
            gradient = ((churned - rows * p) @ basis) / scale - RIDGE * (beta - start)
            curvature = rows * p * (1 - p) / scale
            hessian = np.einsum("...s,si,sj->...ij", curvature, basis, basis) + RIDGE * np.eye(3)
            step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
            # far from the solution the curvature vanishes, and a whole step would not come back
            beta = beta + np.clip(step, -LARGEST_STEP, LARGEST_STEP)
        return cls(beta)

    def log_odds(self, score: Floats) -> Floats:
        """[..., S] of `score` [S]."""
        return np.asarray(self.coefficients @ _basis(score).T)


@dataclass(frozen=True)
class Estimated:
    """What is expected of the predictions of now."""

    metrics: dict[str, Estimate]
    """log_loss_nats, auroc, profit, churn_rate, decisions_right"""
    period_sd: float
    """Spread of the level between matured moments, in log-odds; NaN with fewer than three."""


def estimate(
    matured: Matured, score: Floats, threshold: float, decision: DecisionConfig, seed: int = 0
) -> Estimated:
    """The performance of scores [B] whose outcomes are not known. `decisions_right` is the share of customers
    who churn if their score is above `threshold`, and stay if it is not."""
    draw = np.random.default_rng(seed)
    edges = np.unique(np.quantile(matured.score, np.linspace(0, 1, BINS + 1)))
    centres = _centres(matured.score, edges)
    bins = np.clip(np.searchsorted(edges, matured.score, side="right") - 1, 0, len(centres) - 1)
    customers = int(matured.customer.max()) + 1
    counts = np.stack(
        [np.bincount(draw.integers(0, customers, customers), minlength=customers) for _ in range(DRAWS)]
    )
    weights = np.vstack([np.ones(customers), counts])[:, matured.customer] * matured.weight
    rows = np.stack([np.bincount(bins, one, len(centres)) for one in weights]).astype(np.float64)
    labels = [np.bincount(bins, one * matured.churned, len(centres)) for one in weights]
    fitted = Calibrator.fit(centres, np.stack(labels).astype(np.float64), rows)
    sd, moments = _period_sd(matured, fitted, int(matured.moment.max()) + 1)
    shift = np.zeros(DRAWS + 1)
    if moments > 2:
        shift[1:] = student.rvs(moments - 1, size=DRAWS, random_state=draw) * sd * np.sqrt(1 + 1 / moments)
    values, number = _binned(score)
    c = expit(fitted.log_odds(values) + shift[:, None])  # [1 + DRAWS, V]
    happened = c.copy()
    happened[1:] = draw.binomial(number.astype(np.int64), c[1:]) / number
    metrics = {}
    for name, value in _metrics(happened, values, number, threshold, decision).items():
        low, high = np.nanquantile(value[1:], [0.025, 0.975])
        metrics[name] = Estimate(float(value[0]), float(min(low, value[0])), float(max(high, value[0])))
    return Estimated(metrics, sd if moments > 2 else np.nan)


def expected_auroc(c: Floats, score: Floats, number: Floats) -> Floats:
    """[...]: sum c_i (1 - c_j) over pairs with score i > score j, ties half, over that of all pairs.

    `c` [..., V] are probabilities of the scores [V], ascending and distinct, each of `number` [V] customers.
    """
    positives, negatives = c * number, (1 - c) * number
    below = np.cumsum(negatives, axis=-1) - negatives / 2
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN where one class is not expected at all
        return np.asarray(
            (positives * below).sum(axis=-1) / (positives.sum(axis=-1) * negatives.sum(axis=-1))
        )


def _metrics(
    c: Floats, score: Floats, number: Floats, threshold: float, decision: DecisionConfig
) -> dict[str, Floats]:
    total = number.sum()
    p = np.clip(score, CLIP, 1 - CLIP)
    offered = expected_profit(score, decision) > 0
    gained = expected_profit(np.ones(1), decision)[0] * c + expected_profit(np.zeros(1), decision)[0] * (
        1 - c
    )
    return {
        "log_loss_nats": -((c * np.log(p) + (1 - c) * np.log1p(-p)) @ number) / total,
        "auroc": expected_auroc(c, score, number),
        "profit": (gained * offered) @ number / total,
        "churn_rate": c @ number / total,
        "decisions_right": np.where(score > threshold, c, 1 - c) @ number / total,
    }


def _period_sd(matured: Matured, fitted: Calibrator, moments: int) -> tuple[float, int]:
    """Spread of the level of the matured moments around the calibrator, in log-odds, and their number. The
    level of a moment is one Newton step: observed less expected, over the variance."""
    p = expit(Calibrator(fitted.coefficients[0]).log_odds(matured.score))
    excess = np.bincount(matured.moment, matured.churned - p, moments)
    variance = np.bincount(matured.moment, p * (1 - p), moments)
    known = variance > 0
    level = excess[known] / variance[known]
    return (float(np.std(level, ddof=1)) if len(level) > 1 else np.nan), int(known.sum())


def _basis(score: Floats) -> Floats:
    p = np.clip(score, CLIP, 1 - CLIP)
    return np.column_stack([np.ones(len(p)), np.log(p), -np.log1p(-p)])


def _centres(score: Floats, edges: Floats) -> Floats:
    bins = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, max(len(edges) - 2, 0))
    size = max(len(edges) - 1, 1)
    rows = np.bincount(bins, minlength=size)
    sums = np.bincount(bins, score, size)
    middle = (edges[:-1] + edges[1:]) / 2 if len(edges) > 1 else edges
    return np.asarray(np.divide(sums, rows, out=middle.copy(), where=rows > 0))


def _binned(score: Floats) -> tuple[Floats, Floats]:
    """Distinct scores, ascending, and the number of customers of each; at most about ten times BINS."""
    values, number = np.unique(score, return_counts=True)
    if len(values) > 10 * BINS:
        edges = np.unique(np.quantile(score, np.linspace(0, 1, 10 * BINS + 1)))
        values = _centres(score, edges)
        bins = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, len(values) - 1)
        number = np.bincount(bins, minlength=len(values))
        values, number = values[number > 0], number[number > 0]
    return values, number.astype(np.float64)

"""Metrics of probabilities against labels.

Every number that a gate, a table or the tracking server shows is computed here.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ECE_BINS = 15
"""Equal-width bins of probability: the customary number, and the one for the bounds in configs/gates.yaml."""

SMALLEST_PROBABILITY = 1e-16
"""Clipping bound: an error at probability 0 or 1 costs 36 nats and not infinity."""


def evaluate(churned: ArrayLike, probability: ArrayLike, threshold: float = 0.5) -> dict[str, float]:
    """Metrics of probabilities against 0/1 labels.

    `precision`, `recall` and `f1` are macro averages at `threshold` (churn above it). `auprc_lift` is AUPRC
    over the base rate: a random score has 1. A metric that is undefined (one class only, a score that is
    not a number) is NaN, which every gate refuses.
    """
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

    y = np.asarray(churned, dtype=np.int64)
    p = np.asarray(probability, dtype=np.float64)
    base_rate = float(y.mean()) if len(y) else np.nan
    result: dict[str, float] = dict.fromkeys(NAMES, np.nan) | {"base_rate": base_rate, "rows": len(y)}
    if not len(y) or not np.isfinite(p).all() or base_rate in (0.0, 1.0):
        return result
    predicted = (p > threshold).astype(np.int64)
    precision, recall, f1, _ = precision_recall_fscore_support(y, predicted, average="macro", zero_division=0)
    auprc = float(average_precision_score(y, p))
    return result | {
        "log_loss": log_loss(y, p),
        "auroc": float(roc_auc_score(y, p)),
        "auprc": auprc,
        "auprc_lift": auprc / base_rate,
        "accuracy": float((predicted == y).mean()),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "brier": float(np.mean((p - y) ** 2)),
        "ece": expected_calibration_error(y, p),
    }


NAMES = ("log_loss", "auroc", "auprc", "auprc_lift", "accuracy", "precision", "recall", "f1", "brier", "ece",
         "base_rate", "rows")  # fmt: skip


def log_losses(churned: NDArray[Any], probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Negative log-likelihood of each row, [B] in nats; at most 36 for a probability of exactly 0 or 1."""
    p = np.clip(probability, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.asarray(-np.where(churned == 1, np.log(p), np.log1p(-p)))


def log_loss(churned: NDArray[Any], probability: NDArray[np.float64]) -> float:
    """The mean of `log_losses`, in nats."""
    return float(np.mean(log_losses(churned, probability)))


def logit_losses(churned: NDArray[Any], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """As `log_losses`, from logits [B]; exact for logits of any size."""
    return np.asarray(np.logaddexp(0.0, logits) - churned * logits)


def logit_loss(churned: NDArray[Any], logits: NDArray[np.float64]) -> float:
    """The mean of `logit_losses`, in nats."""
    return float(np.mean(logit_losses(churned, logits)))


def calibration_bins(probability: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each score, int64 [B]: one of ECE_BINS of equal width."""
    return np.minimum((probability * ECE_BINS).astype(np.int64), ECE_BINS - 1)


def expected_calibration_error(churned: NDArray[np.integer], probability: NDArray[np.float64]) -> float:
    """Mean absolute difference of score and frequency over ECE_BINS bins, weighted by their rows.

    Naeini, Cooper and Hauskrecht (2015), AAAI.
    """
    gaps = np.bincount(calibration_bins(probability), weights=probability - churned, minlength=ECE_BINS)
    return float(calibration_error(gaps, len(churned)))


def calibration_error(gaps: NDArray[Any], rows: Any) -> NDArray[np.float64]:
    """The expected calibration error [...] from `gaps` [..., ECE_BINS], the sum of score minus label in each
    bin, and the number of rows [...]."""
    return np.asarray(np.abs(gaps).sum(axis=-1) / rows)

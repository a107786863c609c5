"""How e-values are combined.

An e-value is a measure of evidence whose expectation is at most 1 where the null hypothesis (the canary does
no harm) holds. An e-process is a sequence of e-values of which this is true at every stopping time. By
Ville's inequality it ever reaches 1/alpha with probability at most alpha, so that it may be looked at as
often as one likes (Ramdas, Gruenwald, Vovk & Shafer 2023, Statistical Science 38). All functions work on
logarithms.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LARGE = 1e300
"""Prevents that minus infinity is subtracted from itself."""


def mean_evidence(evidence: Sequence[ArrayLike], weights: Sequence[float] | None = None) -> Array:
    """The log of the (weighted) mean of e-values, which is an e-value whatever their dependence is."""
    share = np.full(len(evidence), 1 / len(evidence)) if weights is None else np.asarray(weights)
    return log_mean(np.stack(np.broadcast_arrays(*evidence)).astype(np.float64), share)


def in_order(evidence: Sequence[ArrayLike]) -> Array:
    """The log of the mean of e-values of things that appear one after the other: windows, or segments.

    The k-th has the weight 1/(k(k+1)) from the beginning. The weight of those that have not appeared yet
    stays on the e-value 1. So a thing that appears later changes no weight of an earlier one. Their
    dependence is free.
    """
    if not len(evidence):
        return np.zeros(())
    number = np.arange(1, len(evidence) + 1)
    weights = [*(1 / (number * (number + 1))), 1 / (len(evidence) + 1)]
    return mean_evidence([*evidence, 0.0], weights)


def log_mean(logs: Array, weights: Array) -> Array:
    """Over the first axis, the log of the weighted mean of exponentials. NaN stays NaN."""
    most = np.maximum(logs.max(axis=0), -LARGE)
    return np.asarray(most + np.log(np.tensordot(weights, np.exp(logs - most), axes=1)))

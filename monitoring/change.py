"""Evidence for a change that began at any check: one test over a whole history of checks.

Each check gives an e-value: a number that is at least 0 and has a mean of at most 1 as long as nothing has
changed, whatever happened at earlier checks. The product of e-values from check s on is evidence for a change
at s. The start is not known, so the products of all starts are averaged with weights that sum to at most one.
This average is a test supermartingale before the change, and by Ville's inequality it ever reaches 1/alpha
with a probability of at most alpha. Sums over possible starts are also the idea of e-detectors, which bound
the average time to a false alarm instead (Shin, Ramdas and Rinaldo, arXiv 2203.03532).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Evidence:
    """The evidence of a change as checks arrive one after the other."""

    def __init__(self) -> None:
        self._checks = 0
        # log of the sum over starts s so far: weight(s) times the product from s on
        self._started = -np.inf

    def add(self, log_e: float) -> float:
        """The log evidence after one more check, whose e-value has the natural logarithm `log_e`."""
        self._checks += 1
        self._started = np.logaddexp(self._started, _log_weight(self._checks)) + log_e
        return float(np.logaddexp(self._started, _log_weight_after(self._checks)))

    def skip(self) -> None:
        """A check that is no evidence, and at which no change can begin."""
        self._checks += 1


def evidence_of_change(log_e_values: Sequence[float]) -> Floats:
    """Log evidence after each check, [checks]; alarm where it reaches log(1/alpha).

    `log_e_values` [checks] are natural logarithms, in the order of the checks. A check without data is 0.
    """
    evidence = Evidence()
    return np.array([evidence.add(log_e) for log_e in log_e_values])


def first_alarm(log_e_values: Sequence[float], alpha: float) -> int | None:
    """The first check, counted from 0, at which the evidence reaches 1/alpha; None if it never does."""
    reached = np.flatnonzero(evidence_of_change(log_e_values) >= -np.log(alpha))
    return int(reached[0]) if len(reached) else None


def _log_weight(check: int) -> float:
    """Of a change at this check: 1/(s(s+1)). All weights together are one."""
    return -float(np.log(check) + np.log(check + 1))


def _log_weight_after(check: int) -> float:
    """Of all later checks: 1/(s+1). Their bets have not begun, so each is still worth its weight."""
    return -float(np.log(check + 1))

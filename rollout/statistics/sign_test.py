"""Is the canary worse in more blocks of time than stable is? A sign test that is valid after every block.

Requests that wait behind one stall are slow together, and a client that retries fails again and again. A test
that counts such requests one by one overestimates the evidence. Here a block is one comparison, whatever the
dependence of its requests is.

In each block the same number of requests is drawn of each variant (the smaller number, at most MOST), and the
canary loses the block where more of its drawn requests have the event. If both variants do alike, the two
numbers are exchangeable, so that the canary loses and wins with one probability. The difference D = P(loses)
- P(wins) over the draws then has the expectation 0, and for each stake b in (0, 1) the product of 1 + b D
over blocks is a martingale. Its mean over a grid of b is an e-process by Ville's inequality: a test of
symmetry by betting (Ramdas, Ruf, Larsson & Koolen 2020, arXiv:2009.03167). The mean over the draws replaces
the drawing itself: it has the same expectation and less variance (Rao 1945, Blackwell 1947).

With a tolerance t the canary may have a share t more: binomial(draws, t) is added to stable's number.

Assumed: given the past, both variants are equally likely to lose a block where both do alike. So blocks must
be longer than a stall. Blocks need not be independent of each other, or alike.
"""

from functools import cache

import numpy as np

from rollout.evidence import Floats, Tries
from rollout.statistics.e_values import log_mean

STAKES = np.array([0.1, 0.25, 0.5, 0.75, 0.95])
MOST = 256
"""Draws of a block: enough to detect a share of one hundredth, and a limit of the time that a block takes."""
FEW = 12
"""Events of a block. Most blocks have fewer, and are computed with narrower arrays."""
TABLE = 100_000
"""Numbers below this have their log-factorial in a table, which is ten times as fast as its computation."""


def excess_in_blocks(canary: Tries, stable: Tries, tolerance: float = 0.0) -> float:
    """Log e-value against "the canary has no more events than stable, in any block". Both have [B] blocks."""
    lost = losses(canary, stable, tolerance)
    return float(
        log_mean(np.log1p(STAKES[:, None] * lost).sum(axis=1), np.full(len(STAKES), 1 / len(STAKES)))
    )


def losses(canary: Tries, stable: Tries, tolerance: float = 0.0) -> Floats:
    """[B] P(the canary has more events) - P(it has fewer), among as many requests of each."""
    drawn = np.minimum(np.minimum(canary.total, stable.total), MOST)
    lost = np.zeros(len(drawn))
    most = np.maximum(canary.events, stable.events)
    for low, high in ((-1, FEW), (FEW, np.inf)):
        rows = (drawn > 0) & (most > low) & (most <= high)
        if rows.any():
            lost[rows] = _lost(canary.rows(rows), stable.rows(rows), drawn[rows], tolerance)
    return np.clip(lost, -1.0, 1.0)


def _lost(canary: Tries, stable: Tries, drawn: Floats, tolerance: float) -> Floats:
    width = int(min(drawn.max(), max(canary.events.max(), stable.events.max()))) + 1
    of_canary, of_stable = _drawn(canary, drawn, width), _drawn(stable, drawn, width)
    if tolerance:
        of_stable = _added(of_stable, _binomial(drawn, tolerance, width))[:, :width]
    at_most = np.cumsum(of_stable, axis=1)
    return np.asarray((of_canary * (at_most - of_stable - (1 - at_most))).sum(axis=1))


def _drawn(tries: Tries, drawn: Floats, width: int) -> Floats:
    """[B, width]: probabilities of 0, 1, ... events among `drawn` of the requests (hypergeometric)."""
    k = np.arange(width)[None, :]
    total, events, n = (of[:, None] for of in (tries.total, tries.events, drawn))
    possible = (k <= np.minimum(events, n)) & (n - k <= total - events)
    logs = (
        _choose(events, np.where(possible, k, 0))
        + _choose(total - events, np.where(possible, n - k, 0))
        - _choose(total, n)
    )
    return np.where(possible, np.exp(logs), 0.0)


def _binomial(drawn: Floats, share: float, width: int) -> Floats:
    from scipy.special import xlog1py, xlogy

    k = np.arange(width)[None, :]
    n = drawn[:, None]
    logs = _choose(n, np.minimum(k, n)) + xlogy(k, share) + xlog1py(np.maximum(n - k, 0), -share)
    return np.where(k <= n, np.exp(logs), 0.0)


def _added(one: Floats, other: Floats) -> Floats:
    """[B, K1 + K2 - 1]: probabilities of the sum of two independent numbers."""
    size = one.shape[1] + other.shape[1] - 1
    both = np.fft.irfft(np.fft.rfft(one, size, axis=1) * np.fft.rfft(other, size, axis=1), size, axis=1)
    return np.asarray(np.maximum(both, 0.0))


def _choose(n: Floats, k: Floats) -> Floats:
    return _log_factorial(n) - _log_factorial(k) - _log_factorial(n - k)


def _log_factorial(n: Floats) -> Floats:
    if n.size and n.max() < TABLE:
        return np.asarray(_log_factorials()[n.astype(np.int64)])
    return _computed(n)


@cache
def _log_factorials() -> Floats:
    return _computed(np.arange(TABLE, dtype=np.float64))


def _computed(n: Floats) -> Floats:
    # imported here, because each command imports the rules for their settings, and SciPy takes 0.2 s
    from scipy.special import gammaln

    return np.asarray(gammaln(n + 1))

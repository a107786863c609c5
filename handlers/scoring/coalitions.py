"""Which coalitions of features are scored for an explanation, and how their log-odds become attributions.

Up to EXACT players (features) all coalitions are scored and the Shapley values are exact. Beyond, they are
means over permutations and their reverses, drawn once with a fixed seed: Castro, Gomez and Tejada (2009),
"Polynomial calculation of the Shapley value based on sampling", and for the reverses Mitchell, Cooper, Frank
and Holmes (2022), "Sampling Permutations for Shapley Value Estimation", JMLR 23. In both cases they sum to
the difference of the log-odds.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import factorial

import numpy as np
from numpy.typing import NDArray

EXACT = 8
"""Players up to whose number all 2^n coalitions are scored."""
PAIRS = 16
"""Permutations beyond that number, each with its reverse: 642 coalitions of 21 players."""
SEED = 20_090_613


@dataclass(frozen=True)
class Design:
    """The coalitions of n players that are scored, and the weights that make attributions of their values."""

    coalitions: NDArray[np.bool_]
    """[coalitions, n], each once: whether the player is in the coalition."""
    weights: NDArray[np.float64]
    """[n, coalitions]: attributions = weights @ values."""
    empty: int
    """Index of the coalition without players."""
    full: int
    """Index of the coalition of all players."""


@lru_cache(maxsize=64)
def design_for(players: int) -> Design:
    """The design for this number of players."""
    if players <= EXACT:
        return _all_coalitions(players)
    return _along_permutations(players)


def _all_coalitions(n: int) -> Design:
    """Shapley's own formula: weight |S|! (n - |S| - 1)! / n! for a player who joins the coalition S."""
    codes = np.arange(2**n)
    coalitions = (codes[:, None] >> np.arange(n) & 1).astype(bool)
    sizes = coalitions.sum(1)
    weights = np.zeros((n, 2**n))
    for code, size in zip(codes.tolist(), sizes.tolist(), strict=True):
        for player in range(n):
            if coalitions[code, player]:
                weights[player, code] = factorial(size - 1) * factorial(n - size) / factorial(n)
            else:
                weights[player, code] = -factorial(size) * factorial(n - size - 1) / factorial(n)
    return Design(coalitions, weights, empty=0, full=2**n - 1)


def _along_permutations(n: int) -> Design:
    """Players join in the order of a permutation; the difference of a step is the share of its player."""
    draws = np.random.default_rng((SEED, n))
    orders = [draws.permutation(n) for _ in range(PAIRS)]
    orders += [order[::-1] for order in orders]
    steps = np.stack([np.argsort(order)[None, :] < np.arange(n + 1)[:, None] for order in orders])
    coalitions, where = np.unique(steps.reshape(-1, n), axis=0, return_inverse=True)
    position = where.reshape(len(orders), n + 1)
    weights = np.zeros((n, len(coalitions)))
    for order, at in zip(orders, position, strict=True):
        for step, player in enumerate(order):
            weights[player, at[step + 1]] += 1 / len(orders)
            weights[player, at[step]] -= 1 / len(orders)
    return Design(coalitions, weights, empty=int(position[0, 0]), full=int(position[0, n]))

"""Categories as trees read them: each value's churn rate, and the values of a short list one by one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEW = 16
"""Values of a column that trees may take one by one too: rates hide what two columns mean together."""
PARTS = 5
"""In which the rows that teach are divided, so that no row's own outcome is in its category's rate."""


def rates(
    codes: NDArray[np.int64], churned: NDArray[np.floating], cardinalities: Sequence[int]
) -> list[NDArray[np.float32]]:
    """Of each categorical column, the churn rate of every code, [n + 1].

    Each is shrunken to the mean rate by as many rows as the spread between categories asks for (Micci-Barreca
    2001, the spread by the method of moments): rare categories and identifiers stay at the mean.
    """
    mean = float(churned.mean())
    noise = max(mean * (1 - mean), 1e-12)
    found = []
    for column, size in zip(codes.T, cardinalities, strict=True):
        rows = np.bincount(column, minlength=size + 1).astype(np.float64)
        total = np.bincount(column, churned, minlength=size + 1)
        seen = rows > 0
        square = (rows[seen] * (total[seen] / rows[seen] - mean) ** 2).sum()
        free = rows.sum() - (rows**2).sum() / rows.sum()
        spread = max((square - noise * (seen.sum() - 1)) / max(free, 1.0), 1e-9)
        found.append(((total + noise / spread * mean) / (rows + noise / spread)).astype(np.float32))
    return found


def looked_up(found: Sequence[NDArray[np.float32]], codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """The rates of rows [B, C], and their values one by one where there are few."""
    return np.hstack([_rated(found, codes), _one_by_one(codes, [len(table) - 1 for table in found])])


def out_of_part(
    codes: NDArray[np.int64], churned: NDArray[np.floating], cardinalities: Sequence[int], seed: int
) -> NDArray[np.float32]:
    """The same of rows that teach, each one's rates from the other parts of the rows."""
    part = np.random.default_rng(seed).permutation(len(codes)) % PARTS
    found = np.empty(codes.shape, dtype=np.float32)
    for number in range(PARTS) if codes.shape[1] else ():
        others = part != number
        found[~others] = _rated(rates(codes[others], churned[others], cardinalities), codes[~others])
    return np.hstack([found, _one_by_one(codes, cardinalities)])


def one_by_one(cardinalities: Sequence[int]) -> list[tuple[int, int]]:
    """Column and code of each value that has an input of its own."""
    # of two values the rate says all
    return [(c, code) for c, n in enumerate(cardinalities) if 2 < n <= FEW for code in range(1, n + 1)]


def _rated(found: Sequence[NDArray[np.float32]], codes: NDArray[np.int64]) -> NDArray[np.float32]:
    columns = [table[column] for table, column in zip(found, codes.T, strict=True)]
    return np.column_stack(columns) if columns else np.empty((len(codes), 0), dtype=np.float32)


def _one_by_one(codes: NDArray[np.int64], cardinalities: Sequence[int]) -> NDArray[np.float32]:
    values = one_by_one(cardinalities)
    found = np.empty((len(codes), len(values)), dtype=np.float32)
    for place, (column, code) in enumerate(values):
        found[:, place] = codes[:, column] == code
    return found

"""Encodes categories for trees: the churn rate of each value, and one-hot codes of columns of few values."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_ONE_HOT_VALUES = 16
"""Most values of a column that is also one-hot encoded, because rates hide interactions of two columns."""
FOLDS = 5
"""Folds of the training rows, so that a row's own label does not enter the rate of its category."""


def rates(
    codes: NDArray[np.int64], churned: NDArray[np.floating], cardinalities: Sequence[int]
) -> list[NDArray[np.float32]]:
    """For each column of codes [B, C], the churn rate of every code, float32 [n + 1].

    Rates are shrunken to the mean rate; the variance between categories determines how strongly
    (Micci-Barreca, 2001, with the variance by the method of moments). Rare categories and identifiers are
    close to the mean.
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


def encode(found: Sequence[NDArray[np.float32]], codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Encode rows of codes [B, C] as float32: rates [B, C], then one-hot codes of columns of few values."""
    return np.hstack([_rated(found, codes), _one_hot(codes, [len(table) - 1 for table in found])])


def encode_out_of_fold(
    codes: NDArray[np.int64], churned: NDArray[np.floating], cardinalities: Sequence[int], seed: int
) -> NDArray[np.float32]:
    """Encode training rows; the rates of each row are computed from the other folds."""
    part = np.random.default_rng(seed).permutation(len(codes)) % FOLDS
    found = np.empty(codes.shape, dtype=np.float32)
    for number in range(FOLDS) if codes.shape[1] else ():
        others = part != number
        found[~others] = _rated(rates(codes[others], churned[others], cardinalities), codes[~others])
    return np.hstack([found, _one_hot(codes, cardinalities)])


def one_hot_values(cardinalities: Sequence[int]) -> list[tuple[int, int]]:
    """Column and code of each one-hot input."""
    # for a column of two values the rate is sufficient
    return [
        (c, code)
        for c, n in enumerate(cardinalities)
        if 2 < n <= MAX_ONE_HOT_VALUES
        for code in range(1, n + 1)
    ]


def _rated(found: Sequence[NDArray[np.float32]], codes: NDArray[np.int64]) -> NDArray[np.float32]:
    columns = [table[column] for table, column in zip(found, codes.T, strict=True)]
    return np.column_stack(columns) if columns else np.empty((len(codes), 0), dtype=np.float32)


def _one_hot(codes: NDArray[np.int64], cardinalities: Sequence[int]) -> NDArray[np.float32]:
    values = one_hot_values(cardinalities)
    found = np.empty((len(codes), len(values)), dtype=np.float32)
    for place, (column, code) in enumerate(values):
        found[:, place] = codes[:, column] == code
    return found

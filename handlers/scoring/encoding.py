"""Converts columns of feature values to the two input arrays of the network, in training and in serving."""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.store.columns import PackedColumns

Column = Sequence[Any] | NDArray[Any]


def encode(
    columns: Mapping[str, Column],
    numeric: Sequence[str],
    vocabulary: Mapping[str, Sequence[str | None]],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """float64 [B, numeric] with NaN for a missing value, and int64 [B, vocabulary] codes.

    Code i + 1 is the category `vocabulary[name][i]`, code 0 one that is not in the training data. If the
    training data contain missing categories, None is in the vocabulary; otherwise a missing one has code 0 as
    well. The columns have the order of `numeric` and of the keys of the vocabulary. Raises KeyError with the
    name of an absent column, ValueError for text in a numeric column.
    """
    if isinstance(columns, PackedColumns):
        numbers = columns.matrix(numeric)
        rows = len(numbers)
    else:
        rows = len(columns[next(iter((*numeric, *vocabulary)))])
        numbers = np.empty((rows, len(numeric)), dtype=np.float64)
        for position, name in enumerate(numeric):
            numbers[:, position] = np.asarray(columns[name], dtype=np.float64)
    codes = np.empty((rows, len(vocabulary)), dtype=np.int64)
    for position, (name, values) in enumerate(vocabulary.items()):
        code_of = {value: code for code, value in enumerate(values, start=1)}
        codes[:, position] = np.fromiter(map(code_of.get, columns[name], repeat(0)), np.int64, rows)
        if None in code_of:
            for row in np.flatnonzero(codes[:, position] == 0).tolist():
                value = columns[name][row]
                if isinstance(value, float) and value != value:  # pandas writes a missing text as NaN
                    codes[row, position] = code_of[None]
    return numbers, codes

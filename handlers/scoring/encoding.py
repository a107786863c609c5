"""From columns of feature values to the network's two arrays: the same lines in training and serving."""

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

    Code 0 is a category that training never saw, code i + 1 is `vocabulary[name][i]`. A missing category
    is None in the vocabulary where training saw missing ones, else it has code 0 too. The order of the
    columns is that of `numeric` and of the vocabulary's keys. Raises KeyError with the name of an absent
    column, ValueError for text where a number belongs.
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

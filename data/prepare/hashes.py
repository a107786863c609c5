"""64-bit hashes of rows. Equal values give equal hashes, in any file.

Among 70 million rows, two different ones have the same hash with a probability of 1 in 7,500. Rows are
treated as equal only if a second value also agrees (customer and time, or the hash of the transaction).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from data.mask import as_one_array

Numbers = np.ndarray[Any, np.dtype[np.uint64]]


def combined_hash(columns: Iterable[Numbers]) -> Numbers:
    """One hash [rows] of several columns [rows]; it depends on their order. It chains the finaliser of
    SplitMix64 (Steele, Lea and Flood, 2014)."""
    state: Numbers | None = None
    for column in columns:
        value = column + np.uint64(0x9E3779B97F4A7C15)
        state = value if state is None else state * np.uint64(0x2545F4914F6CDD1D) + value
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    assert state is not None
    return state


def hash_values(column: pa.ChunkedArray) -> Numbers:
    """A uint64 for each value of a column [rows]. Missing values of a type have one reserved number.

    Raises TypeError for a type that is not text, boolean, integer or float.
    """
    array = as_one_array(column)
    if pa.types.is_string(array.type):
        texts = array.fill_null("").to_numpy(zero_copy_only=False).astype(object)
        return np.asarray(pd.util.hash_array(texts, categorize=True))
    if pa.types.is_boolean(array.type) or array.type == pa.int8():
        array = array.cast(pa.int64())
    if pa.types.is_floating(array.type):
        values = array.to_numpy(zero_copy_only=False) + 0.0  # -0.0 becomes 0.0, null NaN
        return np.where(np.isnan(values), np.nan, values).view(np.uint64)
    if pa.types.is_integer(array.type):
        filled = array.fill_null(MISSING) if array.null_count else array
        return np.asarray(filled.to_numpy(zero_copy_only=False).view(np.uint64))
    raise TypeError(f"no hash of {array.type}")


MISSING = -(2**63)

"""Compares a delivery's rows with the stored rows, by the hashes in the parts' indexes."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from data.prepare.hashes import Numbers

Bools = np.ndarray[Any, np.dtype[np.bool_]]
FILTER_BITS = 24


@dataclass(frozen=True)
class Comparison:
    repeated: Bools
    """[delivered rows] True where an equal row is stored."""
    changed: Bools
    """[delivered rows] True where a row with the same key is stored, but with other values."""
    superseded: dict[str, Bools] = field(default_factory=dict)
    """Name of a stored part -> [its rows] True where a changed row replaces it. Other parts are left out."""


def compare(delivered: pa.Table, known: Iterable[tuple[str, pa.Table]]) -> Comparison:
    """Compare delivered rows with the stored rows `known`, given as name and index of each part.

    Both have the uint64 columns `hash` (of all values) and `key` (of order, transaction, or customer and
    time; 0 for none). A row with a key is compared with the stored row of that key, a row without one by its
    hash.
    """
    hashes, keys = (delivered[name].to_numpy() for name in ("hash", "key"))
    by_key, by_hash = _Rows(keys, keys != 0), _Rows(hashes, keys == 0)
    repeated, changed = np.zeros(len(hashes), bool), np.zeros(len(hashes), bool)
    superseded: dict[str, Bools] = {}
    for name, index in known:
        known_hashes, known_keys = (index[column].to_numpy() for column in ("hash", "key"))
        _, rows = by_hash.found(known_hashes)
        repeated[rows] = True
        places, rows = by_key.found(known_keys)
        equal = hashes[rows] == known_hashes[places]
        repeated[rows[equal]] = True
        changed[rows[~equal]] = True
        if not equal.all():
            superseded[name] = np.zeros(index.num_rows, bool)
            superseded[name][places[~equal]] = True
    return Comparison(by_key.spread(by_hash.spread(repeated)), by_key.spread(changed & ~repeated), superseded)


class _Rows:
    """Finds delivered rows by a number. Most numbers are not found, and a bitmap excludes those quickly."""

    def __init__(self, numbers: Numbers, chosen: Bools) -> None:
        self._rows = np.flatnonzero(chosen)
        self._numbers, first, self._codes = np.unique(numbers[chosen], return_index=True, return_inverse=True)
        self._first = self._rows[first]
        self._filter = np.zeros(1 << FILTER_BITS, bool)
        self._filter[_short(self._numbers)] = True

    def found(self, wanted: Numbers) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Positions in `wanted` of numbers that delivered rows have, and the first such row of each."""
        if not len(self._numbers):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        places = np.flatnonzero(self._filter[_short(wanted)])
        at = np.minimum(np.searchsorted(self._numbers, wanted[places]), len(self._numbers) - 1)
        equal = self._numbers[at] == wanted[places]
        return places[equal], self._first[at[equal]]

    def spread(self, marks: Bools) -> Bools:
        """Copy the mark of the first row with a number to all rows with that number."""
        if len(self._rows):
            marks[self._rows] = marks[self._first[self._codes]]
        return marks


def _short(numbers: Numbers) -> np.ndarray[Any, Any]:
    return (numbers & np.uint64((1 << FILTER_BITS) - 1)).astype(np.int64)

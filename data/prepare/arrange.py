"""Arranges a range of customers: removes copies, adds lines up to orders, sorts by customer and time.

Columns of a staged table: `high`, `low` (the halves of the customer's mask), `time` (microseconds), `place`
(the row's number in the source), `order_high`, `order_low` (hash of the order, 0 for none), `reference` (hash
of the transaction, 0 for none), the other standard columns, and further columns with the prefix `+`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from data.prepare.hashes import Numbers, combined_hash, hash_values

Places = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Rules:
    labelled: bool
    find_copies: bool
    """Whether rows that repeat an earlier row are removed: equal in every column, or for a labelled table in
    customer and time."""
    add_up_orders: bool


@dataclass(frozen=True)
class Arranged:
    rows: pa.Table
    """Sorted by customer, time and place, with two more columns: `hash` (of all values) and `key` (hash of
    the row's order, its transaction, or a labelled row's customer and time; 0 for none)."""
    copies: pa.Table
    """`high`, `low` and `place` of the removed rows."""


def arrange(range_: pa.Table, rules: Rules) -> Arranged:
    """Arrange the staged rows of one range, which are in the order of the source."""
    table = range_.take(pa.array(_order(range_)))
    hashes = row_hashes(table)
    repeated = _repeats(table, hashes, rules.labelled) if rules.find_copies else np.zeros(len(hashes), bool)
    copies = table.select(["high", "low", "place"]).filter(pa.array(repeated))
    if repeated.any():
        table, hashes = table.filter(pa.array(~repeated)), hashes[~repeated]
    if rules.add_up_orders:
        table = _orders(table)
        hashes = row_hashes(table)
    keys = _keys(table, rules)
    return Arranged(table.append_column("hash", [hashes]).append_column("key", [keys]), copies)


def row_hashes(table: pa.Table) -> Numbers:
    """A uint64 hash [rows] of all values of each row except its place in the source."""
    return combined_hash(hash_values(table[name]) for name in table.column_names if name != "place")


def _order(table: pa.Table) -> Places:
    """The sort order by customer and time. It is stable: equal rows stay in the order of the source."""
    high, low, time = (table[name].to_numpy() for name in ("high", "low", "time"))
    order = np.lexsort((time, high))
    first, second = order[:-1], order[1:]
    if ((high[first] == high[second]) & (low[first] != low[second])).any():
        order = np.lexsort((time, low, high))
    return order


def _repeats(table: pa.Table, hashes: Numbers, labelled: bool) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Marks the rows of a sorted table that repeat an earlier one. The first of equal rows is not marked."""
    same = np.ones(max(table.num_rows - 1, 0), bool)
    for name in ("high", "low", "time"):
        values = table[name].to_numpy()
        same &= values[1:] == values[:-1]
    repeated = np.concatenate([[False], same])
    if labelled or not repeated.any():
        return repeated
    candidates = repeated.copy()
    candidates[:-1] |= same
    at = np.flatnonzero(candidates)
    repeated[:] = False
    repeated[at] = pd.Series(hashes[at]).duplicated().to_numpy()  # the hash includes customer and time
    return repeated


def _orders(table: pa.Table) -> pa.Table:
    """One row per customer, order and kind (purchase or return): the sum of amounts and quantities, the
    earliest time, and the other values of the first line. A row without an order is not combined."""
    table = table.take(pa.array(np.argsort(table["place"].to_numpy(), kind="stable")))
    keys = _order_keys(table)
    without_order = np.flatnonzero(keys == 0)
    keys[without_order] = combined_hash([hash_values(table["place"])])[without_order]
    codes, _ = pd.factorize(keys)
    groups = int(codes.max(initial=-1)) + 1
    first = np.full(groups, table.num_rows, np.int64)
    np.minimum.at(first, codes, np.arange(table.num_rows))
    times = np.full(groups, np.iinfo(np.int64).max)
    np.minimum.at(times, codes, table["time"].to_numpy())
    orders = table.take(pa.array(first))
    added: dict[str, Any] = {"time": times}
    for name in ("amount", "quantity"):
        added[name] = np.bincount(codes, weights=table[name].to_numpy(), minlength=groups)
    for name, values in added.items():
        orders = orders.set_column(orders.column_names.index(name), name, [pa.array(values)])
    return orders.take(pa.array(_order(orders)))


def _order_keys(table: pa.Table) -> Numbers:
    """A hash of customer, order and kind for each row; 0 for a row without an order."""
    names = ("high", "low", "order_high", "order_low", "is_return")
    keys = combined_hash(hash_values(table[name]) for name in names)
    return np.where(table["order_high"].to_numpy() == 0, np.uint64(0), keys)


def _keys(table: pa.Table, rules: Rules) -> Numbers:
    if rules.labelled:
        return combined_hash(hash_values(table[name]) for name in ("high", "low", "time"))
    if rules.add_up_orders:
        return _order_keys(table)
    if "reference" in table.column_names:
        return np.asarray(table["reference"].to_numpy())
    return np.zeros(table.num_rows, np.uint64)

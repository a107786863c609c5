"""A range of customers, put in order: copies out, lines added up to orders, sorted by customer and time.

Columns of a staged table: `high`, `low` (the customer's mask in halves), `time` (microseconds), `place` (the
row's number in the source), `order_high`, `order_low` (hash of the order, 0 for none), `reference` (hash of
the transaction, 0 for none), our others under their names, and further ones with a `+` before their names.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from data.prepare.hashes import Numbers, mixed, of_values

Places = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Rules:
    labelled: bool
    find_copies: bool
    """Whether rows that repeat a row above are taken out: equal in every column, or in customer and time of a
    labelled table."""
    add_up_orders: bool


@dataclass(frozen=True)
class Arranged:
    rows: pa.Table
    """Sorted by customer, time and place; beside the staged columns `hash` (of all values) and `key` (what
    the row is about: its order, its transaction, or a labelled row's customer and time; 0 for none)."""
    copies: pa.Table
    """`high`, `low` and `place` of the rows that repeat one above."""


def arrange(range_: pa.Table, rules: Rules) -> Arranged:
    """`range_` is in the source's order."""
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
    """Of all that is known of each row but its place in the source."""
    return mixed(of_values(table[name]) for name in table.column_names if name != "place")


def _order(table: pa.Table) -> Places:
    """Stable, so that rows of one customer and time stay in the order of the source."""
    high, low, time = (table[name].to_numpy() for name in ("high", "low", "time"))
    order = np.lexsort((time, high))
    first, second = order[:-1], order[1:]
    if ((high[first] == high[second]) & (low[first] != low[second])).any():
        order = np.lexsort((time, low, high))
    return order


def _repeats(table: pa.Table, hashes: Numbers, labelled: bool) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Rows of a sorted table that repeat an earlier one; of equals the first in the source stays."""
    same = np.ones(max(table.num_rows - 1, 0), bool)
    for name in ("high", "low", "time"):
        values = table[name].to_numpy()
        same &= values[1:] == values[:-1]
    repeated = np.concatenate([[False], same])
    if labelled or not repeated.any():
        return repeated
    suspects = repeated.copy()
    suspects[:-1] |= same
    at = np.flatnonzero(suspects)
    repeated[:] = False
    repeated[at] = pd.Series(hashes[at]).duplicated().to_numpy()  # the hash holds customer and time
    return repeated


def _orders(table: pa.Table) -> pa.Table:
    """One row a customer, order and kind (purchase or return): amounts and quantities added up, the earliest
    time; what else the row has is the first line's. A row without an order stays alone."""
    table = table.take(pa.array(np.argsort(table["place"].to_numpy(), kind="stable")))
    keys = _order_keys(table)
    alone = np.flatnonzero(keys == 0)
    keys[alone] = mixed([of_values(table["place"])])[alone]
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
    """0 for a row without an order."""
    names = ("high", "low", "order_high", "order_low", "is_return")
    keys = mixed(of_values(table[name]) for name in names)
    return np.where(table["order_high"].to_numpy() == 0, np.uint64(0), keys)


def _keys(table: pa.Table, rules: Rules) -> Numbers:
    if rules.labelled:
        return mixed(of_values(table[name]) for name in ("high", "low", "time"))
    if rules.add_up_orders:
        return _order_keys(table)
    if "reference" in table.column_names:
        return np.asarray(table["reference"].to_numpy())
    return np.zeros(table.num_rows, np.uint64)

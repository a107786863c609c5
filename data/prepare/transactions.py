"""Rows of one transaction id: copies of each other, or rows that differ and are no copies."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data.errors import DataError
from data.prepare.arrange import Places


@dataclass(frozen=True)
class Repeated:
    copies: Places
    """Sorted places of rows that equal a row above of the same transaction in every column."""
    differing: int
    """Rows that have the transaction id of a row above, and another value somewhere."""
    first_differing: int


def find_repeated(ranges: Iterable[pa.Table]) -> Repeated:
    """`ranges` hold `reference`, `reference_low` (the id's hash in halves), `hash` (of the row) and `place`,
    rows of one id in one range."""
    copies, differing = [], []
    for table in ranges:
        rows = table.to_pandas()
        again = rows.duplicated(["reference", "reference_low"])
        if not again.any():
            continue
        first = rows.groupby(["reference", "reference_low"], sort=False)["hash"].transform("first")
        equal = (rows["hash"] == first).to_numpy()
        place, again = rows["place"].to_numpy(), again.to_numpy()
        copies.append(place[again & equal])
        differing.append(place[again & ~equal])
    none = np.array([], np.int64)
    others = np.concatenate([none, *differing])
    first_place = int(others.min()) if len(others) else 0
    return Repeated(np.sort(np.concatenate([none, *copies])), len(others), first_place)


def refuse_differing(repeated: Repeated, uri: str) -> None:
    """Raises DataError: to drop such rows would drop money."""
    if repeated.differing:
        raise DataError(
            f"{uri}: {repeated.differing:,} rows have the transaction_id of a row above, but other values"
            f" (first: row {repeated.first_differing}); if they are lines of one order, map the column to"
            " data.source.columns.order_id instead and set data.source.group_by to order_id, which adds them"
            " up; otherwise remove them"
        )

"""Finds rows with the same transaction id. They are copies if they are equal; else they are an error."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from core.errors import DataError
from data.prepare.arrange import Places


@dataclass(frozen=True)
class Repeated:
    copies: Places
    """Sorted places of rows that equal an earlier row of the same transaction in every column."""
    differing: int
    """Number of rows that have the transaction id of an earlier row, but differ in some column."""
    first_differing: int


def find_repeated(ranges: Iterable[pa.Table]) -> Repeated:
    """Find the repeated transactions in `ranges`, tables with `reference`, `reference_low` (the halves of the
    id's hash), `hash` (of the row) and `place`. All rows of an id are in one range."""
    copies, differing = [], []
    for table in ranges:
        rows = table.to_pandas()
        is_repeated = rows.duplicated(["reference", "reference_low"])
        if not is_repeated.any():
            continue
        first = rows.groupby(["reference", "reference_low"], sort=False)["hash"].transform("first")
        equal = (rows["hash"] == first).to_numpy()
        place, is_repeated = rows["place"].to_numpy(), is_repeated.to_numpy()
        copies.append(place[is_repeated & equal])
        differing.append(place[is_repeated & ~equal])
    none = np.array([], np.int64)
    others = np.concatenate([none, *differing])
    first_place = int(others.min()) if len(others) else 0
    return Repeated(np.sort(np.concatenate([none, *copies])), len(others), first_place)


def refuse_differing(repeated: Repeated, uri: str) -> None:
    """Raise DataError when rows of one transaction differ, because dropping them would lose amounts."""
    if repeated.differing:
        raise DataError(
            f"{uri}: {repeated.differing:,} rows have the transaction_id of a row above, but other values"
            f" (first: row {repeated.first_differing}); if they are lines of one order, map the column to"
            " data.source.columns.order_id instead and set data.source.group_by to order_id, which adds them"
            " up; otherwise remove them"
        )

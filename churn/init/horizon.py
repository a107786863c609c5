"""Chooses the horizon of a log by its length and by how often customers buy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from core.errors import DataError

DEFAULT_DAYS = 90
SHORTER = (60, 45, 30, 21, 14, 7)
LONGER = (180, 365)
ELIGIBLE_DAYS = 365
"""Customers with a purchase within this number of days are judged: the default of `features.eligible`."""
FEWEST, MOST = 0.03, 0.97
"""Bounds of the share of customers without a purchase in the horizon; beyond them, one class is too rare."""


@dataclass(frozen=True)
class Horizon:
    days: int
    every: Literal["month", "week"]
    why: str

    @property
    def as_shipped(self) -> bool:
        """Whether it equals the defaults of the configs."""
        return self.days == DEFAULT_DAYS and self.every == "month"


def needed_days(horizon: int, every: str) -> int:
    """The length of a log: a horizon each for history, training, choice and test, and three snapshots
    (training/learn/split.py)."""
    step = 31 if every == "month" else 7
    return 4 * horizon + 3 * step


def choose_horizon(customers: "pd.Series[int]", days: "pd.Series[float]", test_snapshots: int = 3) -> Horizon:
    """The first possible horizon. `customers` and `days` (since any origin) have one element per purchase.

    Raises DataError if the log is too short, or if nearly no or nearly all customers stay.
    """
    length = float(days.max() - days.min()) + 1
    absent = _absent_share(customers, days)
    gap = _median_gap(customers, days)
    rhythm = (
        f"the log runs {length:,.0f} days; the median time between a customer's purchases is {gap:.0f} days"
    )
    possible: list[Horizon] = []
    for horizon in (DEFAULT_DAYS, *SHORTER, *LONGER):
        every: Literal["month", "week"] = "month" if needed_days(horizon, "month") <= length else "week"
        if needed_days(horizon, every) > length:
            continue
        share = absent(horizon)
        if FEWEST <= share <= MOST:
            why = f"{rhythm}; {share:.0%} make no purchase within {horizon} days"
            possible.append(Horizon(horizon, every, why))
    if possible:
        return possible[0]
    shortest = SHORTER[-1]
    if needed_days(shortest, "week") > length:
        raise DataError(
            f"the log runs {length:,.0f} days, too short to learn from: a horizon of {shortest} days needs "
            f"{needed_days(shortest, 'week')}; give a longer log"
        )
    feasible = [h for h in (DEFAULT_DAYS, *SHORTER) if needed_days(h, "week") <= length]
    share = absent(feasible[0])
    if share > MOST:
        raise DataError(
            f"{share:.1%} of the customers make no purchase within {feasible[0]} days ({rhythm}): hardly"
            " a customer stays; give a longer log, or another customer with --answer user_id=COLUMN"
        )
    raise DataError(
        f"nearly every customer buys within {feasible[-1]} days ({rhythm}): no customer leaves;"
        " give a longer log"
    )


def _absent_share(customers: "pd.Series[int]", days: "pd.Series[float]") -> Callable[[int], float]:
    """Horizon -> share of customers without a purchase in the last `horizon` days, among customers with a
    purchase in the year before."""
    end = float(days.max())
    last = days.groupby(customers).max()

    def share(horizon: int) -> float:
        before = days[days < end - horizon]
        recent = before.groupby(customers[before.index]).max() >= end - horizon - ELIGIBLE_DAYS
        known = recent.index[recent]
        return float((last[known] < end - horizon).mean()) if len(known) else 1.0

    return share


def _median_gap(customers: "pd.Series[int]", days: "pd.Series[float]") -> float:
    frame = (
        pd.DataFrame({"who": customers, "day": np.floor(days)}).drop_duplicates().sort_values(["who", "day"])
    )
    gaps = frame.groupby("who")["day"].diff().dropna()
    return float(gaps.median()) if len(gaps) else float("inf")

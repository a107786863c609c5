"""Windows of history that a model may be trained on, as sets of snapshots."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from retraining.config import Windows

YEAR = 365.25


@dataclass(frozen=True)
class Window:
    """Some of the snapshots before a moment of use."""

    name: str
    moments: tuple[pd.Timestamp, ...]
    """Ascending."""


def windows(config: Windows, snapshots: Sequence[pd.Timestamp], use: pd.Timestamp) -> list[Window]:
    """The configured windows of `snapshots` (ascending), for a model that is used at `use`.

    A window that is empty, or equal to an earlier one, is left out; so is a season that contains one year
    only, since that is a recent window under another name.
    """
    found: list[Window] = []
    if config.all:
        found.append(Window("all history", tuple(snapshots)))
    for days in sorted(config.recent_days, reverse=True):
        since = snapshots[-1] - pd.Timedelta(days=days)
        found.append(Window(f"last {days:g} days", tuple(at for at in snapshots if at > since)))
    if config.season_days is not None:
        season = tuple(at for at in snapshots if season_distance(at, use) <= config.season_days)
        if season and (season[-1] - season[0]).days > 2 * config.season_days:
            found.append(Window(f"same season within {config.season_days:g} days", season))
    chosen: list[Window] = []
    for window in found:
        if window.moments and all(window.moments != other.moments for other in chosen):
            chosen.append(window)
    return chosen


def season_distance(one: pd.Timestamp, other: pd.Timestamp) -> float:
    """Days between two moments of the year, around its end: 0 to 182.6."""
    days = abs((one - other) / pd.Timedelta(days=1)) % YEAR
    return float(min(days, YEAR - days))

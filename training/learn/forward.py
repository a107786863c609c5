"""Forward in time: older snapshots of a log teach, newer ones judge, each a horizon later.

What is chosen on customers of the same months is too optimistic where a log drifts or has seasons, since the
model is used on months that nobody has seen. So every choice is judged as the model will be: by rows whose
snapshot lies a horizon or more after the snapshots that it learned from (rolling origins: Tashman, 2000).
"""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Positions = NDArray[np.int64]
Fold = tuple[Positions, Positions]
"""Positions of the rows to learn from and of the rows to judge."""

ORIGINS = 3
"""At most so many snapshots judge; the newest, since they are the most like those to come."""
LEAST_SHARE = 0.55
"""Of all rows that an origin has to learn from: with a shorter history other paths are best."""


def origins(
    moments: "pd.Series[pd.Timestamp]",
    churned: NDArray[np.integer],
    horizon: timedelta,
    most: int = ORIGINS,
    least_share: float = LEAST_SHARE,
) -> list[Fold]:
    """Folds of a log's training rows [B], the newest judge first; empty where the log is too short for one.

    `moments` are the rows' snapshots. Judges lie a third of a horizon or more apart, so that weekly snapshots
    do not judge by nearly the same weeks. The newest judge is taken however few rows come before it; each
    part of a fold holds both classes.
    """
    folds: list[Fold] = []
    for judge in _spaced(sorted(moments.unique(), reverse=True), horizon / 3):
        learned = np.flatnonzero((moments + horizon <= judge).to_numpy())
        judged = np.flatnonzero((moments == judge).to_numpy())
        if len(folds) == most or (folds and len(learned) < least_share * len(moments)):
            break
        if all(len(np.unique(churned[part])) == 2 for part in (learned, judged)):
            folds.append((learned, judged))
    return folds


def _spaced(newest_first: Sequence[pd.Timestamp], apart: timedelta) -> list[pd.Timestamp]:
    chosen: list[pd.Timestamp] = []
    for moment in newest_first:
        if not chosen or chosen[-1] - moment >= apart:
            chosen.append(moment)
    return chosen

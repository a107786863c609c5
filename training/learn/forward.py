"""Validation forward in time: training on older snapshots of a log, validation on a snapshot a horizon later.

A choice made on customers of the same months is too optimistic if a log drifts or has seasons, since the
model is used on later months. So every choice is validated in the way the model is used: on rows whose
snapshot is a horizon or more after the snapshots of the training rows (rolling origins: Tashman, 2000).
"""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Positions = NDArray[np.int64]
Fold = tuple[Positions, Positions]
"""Positions of the training rows and of the validation rows."""

ORIGINS = 3
"""Most validation snapshots; the newest ones, since they resemble the future most."""
LEAST_SHARE = 0.55
"""Least share of all rows that an origin trains on: with a shorter history other paths are best."""


def origins(
    moments: "pd.Series[pd.Timestamp]",
    churned: NDArray[np.integer],
    horizon: timedelta,
    most: int = ORIGINS,
    least_share: float = LEAST_SHARE,
) -> list[Fold]:
    """Folds of a log's training rows [B], the newest validation snapshot first; empty for a short log.

    `moments` holds the snapshot of each row. The distance between validation snapshots is a third of a
    horizon or more, so that weekly snapshots do not validate on nearly the same weeks. The newest one is
    taken with any number of earlier rows. Each part of a fold holds both classes.
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


def _spaced(newest_first: Sequence[pd.Timestamp], least_distance: timedelta) -> list[pd.Timestamp]:
    chosen: list[pd.Timestamp] = []
    for moment in newest_first:
        if not chosen or chosen[-1] - moment >= least_distance:
            chosen.append(moment)
    return chosen

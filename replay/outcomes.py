"""What became known of the customers of a moment: when they returned, and whether they have churned."""

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.workspace import Workspace

Floats = NDArray[np.float64]


class Activity:
    """The purchases of a workspace's records, and returns too where they count as life."""

    def __init__(self, files: Workspace, returns_count: bool) -> None:
        rows = pd.read_parquet(files.records, columns=["user_id", "timestamp", "is_return"])
        self._rows = rows if returns_count else rows[~rows["is_return"]]

    def return_days(self, users: tuple[str, ...], moment: datetime) -> Floats:
        """[users]: days from `moment` to the first activity at or after it; NaN without one."""
        later = self._rows[self._rows["timestamp"] >= moment]
        first = later.groupby("user_id")["timestamp"].min().reindex(list(users))
        days = (first - pd.Timestamp(moment)) / timedelta(days=1)
        return np.asarray(days, dtype=np.float64)


def churned(return_days: Floats, horizon: timedelta) -> NDArray[np.int64]:
    """[B]: 1 for a customer without activity within [moment, moment + horizon), as features/labels.py."""
    return (~(return_days < horizon / timedelta(days=1))).astype(np.int64)

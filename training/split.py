"""Which rows teach, which choose and which judge."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.errors import TrainingError
from training.config import TrainingConfig

Shape = Literal["transactions", "labelled"]


@dataclass(frozen=True)
class Split:
    """Row positions. `inner_train` and `inner_validation` lie within `train`; nothing of `test` chooses."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]
    inner_train: NDArray[np.int64]
    inner_validation: NDArray[np.int64]


def split_rows(rows: pd.DataFrame, shape: Shape, horizon: timedelta, config: TrainingConfig) -> Split:
    """Split `rows` (user_id, event_timestamp, churned).

    A log is split by time: a label looks one horizon ahead, so every training snapshot ends its horizon
    before the first snapshot that it is judged on. A labelled table has exchangeable rows: shares of each
    class, chosen by the seed over sorted ids, so that the order of the file does not matter.
    Raises TrainingError where there are too few snapshots, rows or classes.
    """
    split = _by_time(rows, horizon, config) if shape == "transactions" else _by_share(rows, config)
    for part in (split.train, split.test, split.inner_train, split.inner_validation):
        if rows["churned"].iloc[part].nunique() < 2:
            raise TrainingError(
                "one part of the split holds a single class; bring more rows or another features.horizon_days"
            )
    return split


def _by_time(rows: pd.DataFrame, horizon: timedelta, config: TrainingConfig) -> Split:
    moments = rows["event_timestamp"]
    snapshots = sorted(moments.unique())
    test = snapshots[-config.test_snapshots :]
    train = [moment for moment in snapshots if moment + horizon <= test[0]]
    inner_validation = train[-1:]
    inner_train = [moment for moment in train if moment + horizon <= inner_validation[0]]
    if not inner_train:
        raise TrainingError(
            f"{len(snapshots)} labelled snapshots are too few: {config.test_snapshots} to test on, one to "
            f"choose on and one to learn from, each {horizon.days} days before the next; bring a longer log, "
            "or lower training.test_snapshots or features.horizon_days"
        )

    def at(chosen: list[pd.Timestamp]) -> NDArray[np.int64]:
        return np.flatnonzero(moments.isin(chosen).to_numpy())

    return Split(at(train), at(test), at(inner_train), at(inner_validation))


def _by_share(rows: pd.DataFrame, config: TrainingConfig) -> Split:
    by_id = np.argsort(rows["user_id"].to_numpy(dtype=str), kind="stable")
    churned = rows["churned"].to_numpy()
    draw = np.random.default_rng(config.seed)
    train, test = _stratified(by_id, churned, config.test_share, draw)
    inner_train, inner_validation = _stratified(train, churned, config.validation_share, draw)
    return Split(*(np.sort(part) for part in (train, test, inner_train, inner_validation)))


def _stratified(
    positions: NDArray[np.int64], churned: NDArray[np.integer], share: float, draw: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rest, and `share` of the positions of each class."""
    kept, taken = [], []
    for label in (0, 1):
        members = draw.permutation(positions[churned[positions] == label])
        cut = round(share * len(members))
        taken.append(members[:cut])
        kept.append(members[cut:])
    return np.concatenate(kept), np.concatenate(taken)

"""Splits the rows into training, validation and test rows."""

from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.errors import TrainingError
from training.config import TrainingConfig

Shape = Literal["transactions", "labelled"]
Positions = NDArray[np.int64]

LEAST_EARLIER = 0.5
"""A dated table is split by time only if the earlier moments hold this share of the rows."""

BY_SNAPSHOT = "newest snapshots, one horizon after the last training snapshot"
BY_TIME = "newest moments"
BY_CUSTOMER = "customers drawn by a hash"


@dataclass(frozen=True)
class Split:
    """Row positions. `inner_train` and `inner_validation` are parts of `train`; `test` chooses no setting."""

    train: Positions
    test: Positions
    inner_train: Positions
    inner_validation: Positions
    rule: str = BY_CUSTOMER
    """How the test rows were chosen, in words."""


def split_rows(rows: pd.DataFrame, shape: Shape, horizon: timedelta, config: TrainingConfig) -> Split:
    """Splits `rows` (user_id, event_timestamp, churned); the order of the rows does not matter.

    - A log is split by time: a label covers one horizon, so the horizon of every training snapshot ends
      before the first test snapshot.
    - A labelled table with rows of several moments is split by time as well: the newest moments that hold at
      least `test_share` of the rows are the test rows, all rows of earlier moments are training rows. If this
      leaves less than LEAST_EARLIER of the rows for training (nearly all rows are of one moment), or a single
      class on one side (the moment is that of leaving), the next rule applies.
    - Otherwise the rows are exchangeable: a customer is in the test rows if a hash of the id and the seed is
      below `test_share`, so that other rows, more rows or another order move no customer.
    Training rows are divided by the same rules into inner training and validation rows.

    Raises TrainingError if there are too few snapshots, rows or classes.
    """
    split = _of_log(rows, horizon, config) if shape == "transactions" else _of_table(rows, config)
    for part in (split.train, split.test, split.inner_train, split.inner_validation):
        if rows["churned"].iloc[part].nunique() < 2:
            raise TrainingError(
                "one part of the split holds a single class; bring more rows or another features.horizon_days"
                if shape == "transactions"
                else "one part of the split holds a single class; bring more rows, or check "
                "data.source.positive"
            )
    return split


def in_share(user_ids: pd.Series, share: float, seed: int, purpose: str) -> NDArray[np.bool_]:
    """Whether each customer is in the share of all customers that seed and purpose choose, [B].

    It depends only on a keyed hash of the id, so two purposes are independent of each other.
    """
    return hashed(user_ids, seed, purpose) < share


def hashed(user_ids: pd.Series, seed: int, purpose: str) -> NDArray[np.float64]:
    """[B], uniform in [0, 1): the same number for the same customer, independent of other rows."""
    key = f"{purpose}:{seed}".encode()
    codes, known = pd.factorize(user_ids)
    words = (blake2b(str(user).encode(), key=key, digest_size=8).digest() for user in known)
    numbers = np.frombuffer(b"".join(words), dtype=">u8")
    # 53 bits, as many as a float holds
    return ((numbers >> np.uint64(11)).astype(np.float64) / 2**53)[codes]


def _of_log(rows: pd.DataFrame, horizon: timedelta, config: TrainingConfig) -> Split:
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

    def at(chosen: list[pd.Timestamp]) -> Positions:
        return np.flatnonzero(moments.isin(chosen).to_numpy())

    return Split(at(train), at(test), at(inner_train), at(inner_validation), BY_SNAPSHOT)


def _of_table(rows: pd.DataFrame, config: TrainingConfig) -> Split:
    everyone = np.arange(len(rows))
    train, test, by_time = _divided(rows, everyone, config.test_share, config.seed, "test")
    inner_train, inner_validation, _ = _divided(
        rows, train, config.validation_share, config.seed, "validation"
    )
    return Split(train, test, inner_train, inner_validation, BY_TIME if by_time else BY_CUSTOMER)


def _divided(
    rows: pd.DataFrame, positions: Positions, share: float, seed: int, purpose: str
) -> tuple[Positions, Positions, bool]:
    """The rest and the share of `positions`, and whether they are split by time."""
    chosen = rows.iloc[positions]
    newest = newest_share(chosen, share)
    taken = in_share(chosen["user_id"], share, seed, purpose) if newest is None else newest
    return positions[~taken], positions[taken], newest is not None


def newest_share(rows: pd.DataFrame, share: float) -> NDArray[np.bool_] | None:
    """Mask [B] of the newest moments with at least `share` of the rows; None if no split by time works."""
    moments = rows["event_timestamp"].to_numpy()
    if not len(moments):
        return None
    ordered = np.sort(moments)
    first = ordered[len(ordered) - max(1, int(np.ceil(share * len(ordered))))]
    newest: NDArray[np.bool_] = moments >= first
    churned = rows["churned"].to_numpy()
    enough = (~newest).sum() >= int(min(LEAST_EARLIER, 1 - share) * len(rows))
    if not enough or any(len(np.unique(churned[side])) < 2 for side in (newest, ~newest)):
        return None
    return newest

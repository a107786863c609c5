"""The files that a monitor run reads, and their rows before the end of its window."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from features.spec import FeaturesConfig

MOMENT = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class Sources:
    """Where the data of one run are, and its window. Nothing at or after `at` is read."""

    spec: FeaturesConfig
    since: datetime
    at: datetime
    records: Sequence[Path]
    """The parts of the records, in their order."""
    snapshots: Path
    """customer_snapshots.parquet; it may be missing."""
    labels: Path
    """labels.parquet; it may be missing."""
    training: Path
    """The rows that the model was trained on, with the features' columns; it may be missing."""
    test_scores: Path
    """The model's scores of its test rows; it may be missing."""
    predictions: Path
    """The folder of the prediction log; it may be missing."""
    left_out: frozenset[str] = frozenset()
    """Model versions in the log whose features are those of another spec, and are not compared."""

    @property
    def used(self) -> tuple[str, ...]:
        """The features in the snapshots. All of them are inputs of the network."""
        return tuple(feature.name for feature in self.spec.features)

    def moments(self) -> list[pd.Timestamp]:
        """The times of the snapshots at or before `at`, ascending. Empty if there are none."""
        if not self.snapshots.is_file():
            return []
        column = ds.dataset(self.snapshots).to_table(columns=["event_timestamp"])["event_timestamp"]
        found = pd.DatetimeIndex(pc.unique(column).to_pandas()).sort_values()
        return list(found[found <= pd.Timestamp(self.at)])

    def snapshot(self, moment: pd.Timestamp) -> pd.DataFrame:
        """The rows of one snapshot, indexed by `user_id`, with those features that the file has."""
        dataset = ds.dataset(self.snapshots)
        there = [name for name in self.used if name in dataset.schema.names]
        rows = dataset.to_table(
            columns=["user_id", *there],
            filter=ds.field("event_timestamp") == pa.scalar(moment.to_pydatetime(), MOMENT),
        )
        table: pd.DataFrame = rows.to_pandas()
        return table.set_index("user_id")

    def training_rows(self) -> pd.DataFrame | None:
        """The labelled rows whose horizon had passed at `at`, with features; None if there are none."""
        if not self.training.is_file():
            return None
        known = pa.scalar(self.at - self.spec.horizon, MOMENT)
        rows = ds.dataset(self.training).to_table(filter=ds.field("event_timestamp") <= known)
        table: pd.DataFrame = rows.to_pandas()
        return table if len(table) else None

    def labelled(self, moments: Sequence[pd.Timestamp]) -> pd.DataFrame | None:
        """The newest labels whose horizon had passed at `at`, with the features of their moment; None if
        there are none."""
        if not self.labels.is_file():
            return None
        known = [moment for moment in moments if moment + self.spec.horizon <= self.at]
        for moment in reversed(known):
            at = pa.scalar(moment.to_pydatetime(), MOMENT)
            labels = ds.dataset(self.labels).to_table(filter=ds.field("event_timestamp") == at).to_pandas()
            if len(labels):
                joined: pd.DataFrame = labels.merge(
                    self.snapshot(moment), left_on="user_id", right_index=True
                )
                return joined
        return None

    def scores(self) -> pd.DataFrame | None:
        """The champion's scores of its test rows (`score`) with their features; None if there are none."""
        rows = self.training_rows() if self.test_scores.is_file() else None
        if rows is None:
            return None
        scores = pd.read_parquet(self.test_scores, columns=["user_id", "event_timestamp", "score"])
        joined: pd.DataFrame = rows.merge(scores, on=["user_id", "event_timestamp"])
        return joined

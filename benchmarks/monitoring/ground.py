"""The data of the benchmark: the real log of a workspace with made hours and countries, and its snapshots.

CDNOW has dates without hours and one country. Each row gets an hour from a profile with a peak in the
evening, and each customer one of four countries, so that faults of both kinds can be planted.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from features import purchases
from features.snapshots import Schedule
from features.spec import FeaturesConfig

COUNTRIES, SHARES = ("DE", "FR", "NL", "PL"), (0.5, 0.25, 0.15, 0.1)
PROFILE = np.array([1, 1, 1, 1, 1, 1, 2, 4, 6, 7, 7, 7, 8, 7, 6, 6, 7, 8, 10, 12, 13, 12, 8, 4], dtype=float)


@dataclass(frozen=True)
class Ground:
    """Records, and snapshots at regular moments that follow from them."""

    spec: FeaturesConfig
    records: pd.DataFrame
    """user_id, timestamp, amount, quantity, is_return, country"""
    snapshots: pd.DataFrame
    """user_id, event_timestamp, created_timestamp, features"""

    @property
    def moments(self) -> list[pd.Timestamp]:
        """The moments of the snapshots, ascending."""
        return sorted(self.snapshots["event_timestamp"].unique())

    def until(self, moment: pd.Timestamp) -> "Ground":
        """Without what became known at or after `moment`, but for the snapshot of that moment."""
        return replace(
            self,
            records=self.records[self.records["timestamp"] < moment],
            snapshots=self.snapshots[self.snapshots["event_timestamp"] <= moment],
        )

    def rebuilt(self, records: pd.DataFrame) -> "Ground":
        """With other records, and the newest snapshot computed from them."""
        newest = self.moments[-1]
        old = self.snapshots[self.snapshots["event_timestamp"] < newest]
        fresh = computed(self.spec, records, [newest])
        return replace(self, records=records, snapshots=pd.concat([old, fresh], ignore_index=True))


def ground(spec: FeaturesConfig, records: Path, days: int, checks: int, seed: int = 0) -> Ground:
    """The log in the folder `records`, with snapshots every `days` days: `checks` up to the end of the log,
    and those before, from a horizon after the beginning."""
    rng = np.random.default_rng(seed)
    table = pq.read_table(records, partitioning=None).to_pandas()
    hours = rng.choice(24, len(table), p=PROFILE / PROFILE.sum())
    table["timestamp"] = table["timestamp"] + pd.to_timedelta(hours, unit="h")
    users = np.sort(table["user_id"].unique())
    countries = rng.choice(COUNTRIES, len(users), p=SHARES)
    table["country"] = table["user_id"].map(dict(zip(users, countries, strict=True)))
    table = table.sort_values(["user_id", "timestamp"], kind="stable", ignore_index=True)
    end: datetime = table["timestamp"].max().to_pydatetime().replace(hour=0)
    begin = table["timestamp"].min().to_pydatetime() + spec.horizon
    moments = [end - timedelta(days=days * step) for step in range(checks + 26)]
    wanted = sorted(moment for moment in moments if moment >= begin)
    return Ground(spec, table, computed(spec, table, [pd.Timestamp(moment) for moment in wanted]))


def computed(spec: FeaturesConfig, records: pd.DataFrame, moments: Sequence[pd.Timestamp]) -> pd.DataFrame:
    """The snapshots at these moments, as `churn features build` computes them."""
    with tempfile.TemporaryDirectory(prefix="ground-") as scratch:
        part = Path(scratch) / "base-00000.parquet"
        write_records(records, part)
        out = Path(scratch) / "out"
        schedule = Schedule(tuple(moment.to_pydatetime() for moment in moments), ())
        purchases.write_parts(spec, [part], schedule, out, lambda _: None)
        files = sorted((out / "snapshots").glob("*.parquet"))
        return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def write_records(records: pd.DataFrame, file: Path) -> None:
    """Write the records as ingest does: sorted, times in microseconds."""
    records = records.sort_values(["user_id", "timestamp"], kind="stable")
    records = records.assign(timestamp=records["timestamp"].dt.as_unit("us"))
    records.to_parquet(file, index=False)

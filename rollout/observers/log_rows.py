"""Rows of the prediction log as columns of numbers, and the labels that belong to them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.errors import ServingError
from handlers.identity import PROBE_ID
from rollout.evidence import Floats, Labelled
from rollout.observers.log_files import FEATURE

VARIANTS = ("stable", "canary")

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Scored customers, [R] each."""

    time_us: Integers
    """On the controller's clock."""
    canary: Flags
    score: Floats
    missing: Flags
    stale: Flags
    degraded: Flags
    high_risk: Flags
    key: Integers
    """A hash of request and customer."""
    user: Integers
    """A hash of the customer."""
    segments: dict[str, NDArray[Any]] = field(default_factory=dict)

    def chosen(self, which: Flags | Integers) -> "Rows":
        columns = {name: value[which] for name, value in vars(self).items() if name != "segments"}
        return Rows(**columns, segments={name: value[which] for name, value in self.segments.items()})

    def once_each(self) -> "Rows":
        """The first row of each customer, in the order of rows."""
        return self.chosen(np.sort(np.unique(self.user, return_index=True)[1]))

    @classmethod
    def joined(cls, parts: "Sequence[Rows]") -> "Rows":
        first = parts[0]
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in vars(first)
            if name != "segments"
        }
        segments = {name: np.concatenate([part.segments[name] for part in parts]) for name in first.segments}
        return cls(**columns, segments=segments)


def rows_of(table: pa.Table, since: datetime, offset: timedelta, segments: Sequence[str]) -> Rows:
    """Predictions from `since` on for known customers with their own features: no probes, no what-if
    requests.

    `offset`: by how much the workers' clock is ahead of the controller's. Raises ServingError for a segment
    that is no feature of the model.
    """
    unwanted = pc.or_(
        pc.equal(table["user_id"], PROBE_ID),
        pc.greater(pc.fill_null(pc.list_value_length(table["overridden"]), 0), 0),
    )
    early = pc.less(_times_us(table), microseconds(since) + microseconds(offset))
    known = pc.is_in(table["variant"], pa.array(VARIANTS))
    table = table.filter(pc.and_(pc.invert(pc.or_(unwanted, early)), known))
    status = table["status"]
    missing = pc.equal(status, "unknown")
    for name in table.column_names:
        if name.startswith(FEATURE) and table[name].null_count:
            missing = pc.or_(missing, pc.is_null(table[name]))
    users, requests = table["user_id"].to_pylist(), table["request_id"].to_pylist()
    return Rows(
        time_us=_times_us(table).to_numpy() - microseconds(offset),
        canary=pc.equal(table["variant"], "canary").to_numpy(),
        score=table["score"].to_numpy(),
        missing=missing.to_numpy(),
        stale=pc.equal(status, "stale").to_numpy(),
        degraded=pc.equal(status, "degraded").to_numpy(),
        high_risk=pc.equal(table["decision"], "High Risk").to_numpy(),
        key=np.array([hash(pair) for pair in zip(requests, users, strict=True)], dtype=np.int64),
        user=np.array([hash(user) for user in users], dtype=np.int64),
        segments={name: _segment(table, name) for name in segments},
    )


def _segment(table: pa.Table, name: str) -> NDArray[Any]:
    if FEATURE + name not in table.column_names:
        raise ServingError(f"rollout.segments: {name}: not a feature of the model; see the prediction log")
    return np.array([str(value) for value in table[FEATURE + name].to_pylist()], dtype=object)


def _times_us(table: pa.Table) -> Any:
    return table["time"].cast(pa.timestamp("us")).cast(pa.int64())


def microseconds(moment: datetime | timedelta) -> int:
    """Of a length of time, or since 1970."""
    length = moment if isinstance(moment, timedelta) else moment - datetime.fromisoformat("1970-01-01T00:00Z")
    return length // timedelta(microseconds=1)


class Labels:
    """Outcomes from a Parquet file that may appear and grow: user_id (masked), event_timestamp, churned.

    A prediction looks `horizon` ahead. So an outcome belongs to the prediction of its customer that was made
    `horizon` before it, with a tolerance of `within`. `offset`: by how much the workers' clock is ahead.
    """

    def __init__(
        self, file: Path, horizon: timedelta, offset: timedelta, within: timedelta = timedelta(days=1)
    ) -> None:
        self._file, self._within_us = file, microseconds(within)
        self._shift_us = microseconds(offset) + microseconds(horizon)
        self._version: tuple[int, int] | None = None
        self._table: pd.DataFrame | None = None

    def changed(self) -> bool:
        """Read the file where it has changed since the last call. Raises ServingError."""
        try:
            found = self._file.stat()
            version = (found.st_mtime_ns, found.st_size)
            if version == self._version:
                return False
            table = pd.read_parquet(self._file, columns=["user_id", "event_timestamp", "churned"])
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError) as error:
            raise ServingError(f"labels {self._file}: {str(error).splitlines()[0]}") from None
        moments = pd.to_datetime(table["event_timestamp"], utc=True)
        labels = pd.DataFrame(
            {
                "user": [hash(user) for user in table["user_id"]],
                "at": moments.dt.as_unit("us").astype("int64") - self._shift_us,
                "churned": table["churned"].astype(float),
            }
        )
        self._version, self._table = version, labels.sort_values("at")
        return True

    def of(self, rows: Rows) -> Labelled:
        """The scores of `rows` whose outcome is known."""
        if self._table is None or not len(rows.score):
            return Labelled()
        scored = pd.DataFrame({"user": rows.user, "at": rows.time_us, "score": rows.score})
        matched = pd.merge_asof(
            scored, self._table, on="at", by="user", direction="nearest", tolerance=self._within_us
        ).dropna(subset=["churned"])
        return Labelled(matched["score"].to_numpy(), matched["churned"].to_numpy())

"""The prediction log as evidence: for each window, the customers of both variants.

Each window has one row for each customer, to which a look adds only what is new. So neither time nor memory
grows with the number of requests.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from core.errors import ServingError
from rollout.evidence import Arm, Floats, Labelled, none
from rollout.observers.log_rows import Labels, Rows, microseconds, rows_of
from rollout.observers.observer import Opened

RECENT = timedelta(minutes=10)
"""How long rows stay in memory after they were read, for a window that begins anew."""


@dataclass(frozen=True)
class Logged:
    """One window's customers: an Arm for each variant without the proxy's counts, and the pairs of a shadow.

    Each customer counts once, by the first record. The rules' tests assume independent rows, and the scores
    of one customer's requests depend on each other.
    """

    stable: Arm = field(default_factory=Arm)
    canary: Arm = field(default_factory=Arm)
    pairs: Floats = field(default_factory=none)


@dataclass
class _WindowRows:
    """One window's rows: the first of each variant and customer. In a shadow all rows, since pairs are of
    requests."""

    chunks: int
    """How many chunks of the reader are included."""
    rows: Rows | None = None
    version: int = 0

    def add(self, fresh: Rows, mirror: bool) -> None:
        if not len(fresh.score):
            return
        rows = fresh if self.rows is None else Rows.joined([self.rows, fresh])
        rows = rows.chosen(np.argsort(rows.time_us, kind="stable"))
        if not mirror:
            customers = np.stack([rows.user, rows.canary.astype(np.int64)])
            rows = rows.chosen(np.sort(np.unique(customers, axis=1, return_index=True)[1]))
        self.rows, self.version = rows, self.version + 1


class LogSource(Protocol):
    """A folder (log_files.py) or a topic (log_topic.py)."""

    def new_rows(self, since: datetime) -> Iterator[pa.Table]:
        """Rows since the last call, of records after `since` on the workers' clock."""


class PredictionLogReader:
    """`source`: where the rows come from. `segments`: features whose values are judged separately.
    `clock_offset`: by how much the workers' clock is ahead of the controller's. `labels`: outcomes, where
    there are any."""

    def __init__(
        self,
        source: LogSource,
        segments: Sequence[str] = (),
        clock_offset: timedelta = timedelta(0),
        labels: Labels | None = None,
    ) -> None:
        self._source, self._segments, self._offset = source, tuple(segments), clock_offset
        self._labels = labels
        self._chunks: list[Rows] = []
        self._dropped = 0
        """Chunks that were removed from the front, because they are older than any window needs."""
        self._windows: dict[tuple[int, bool], _WindowRows] = {}
        self._made: dict[tuple[Any, ...], Logged] = {}

    def read(self, since: datetime) -> None:
        """Read what is new. Raises ServingError where the log or the labels cannot be read."""
        try:
            tables = self._source.new_rows(since + self._offset)
            fresh = [rows_of(table, since, self._offset, self._segments) for table in tables]
        except (OSError, pa.ArrowException) as error:
            raise ServingError(f"prediction log {self._source}: {str(error).splitlines()[0]}") from None
        self._chunks.extend(rows for rows in fresh if len(rows.score))
        self._forget()
        if self._labels is not None and self._labels.changed():
            self._made.clear()

    def logged(self, window: Opened) -> Logged:
        """What was read of this window so far. Records may arrive late, also for closed windows."""
        begin = microseconds(window.begun)
        end = np.iinfo(np.int64).max if window.ended is None else microseconds(window.ended)
        found = self._windows.setdefault((begin, window.mirror), _WindowRows(self._dropped))
        for chunk in self._chunks[found.chunks - self._dropped :]:
            found.add(chunk.chosen(chunk.time_us >= begin), window.mirror)
        found.chunks = self._dropped + len(self._chunks)
        if found.rows is None:
            return Logged()
        state = (begin, end, found.version, window.mirror)
        if state not in self._made:
            self._made = {known: made for known, made in self._made.items() if known[0] != begin}
            self._made[state] = self._logged(found.rows.chosen(found.rows.time_us < end), window.mirror)
        return self._made[state]

    def _forget(self) -> None:
        """Removes windows that the last look did not need, since they began anew, and rows that all others
        have."""
        looked = max((found.chunks for found in self._windows.values()), default=0)
        self._windows = {key: found for key, found in self._windows.items() if found.chunks == looked}
        newest = max((int(chunk.time_us.max()) for chunk in self._chunks), default=0)
        while self._dropped < looked and self._chunks[0].time_us.max() < newest - microseconds(RECENT):
            self._chunks.pop(0)
            self._dropped += 1

    def _logged(self, rows: Rows, mirror: bool) -> Logged:
        stable, canary = rows.chosen(~rows.canary), rows.chosen(rows.canary)
        pairs = _pairs(stable, canary) if mirror else none()
        return Logged(self._arm(stable.once_each()), self._arm(canary.once_each()), pairs)

    def _arm(self, rows: Rows) -> Arm:
        return Arm(
            customers=len(rows.score),
            missing=int(rows.missing.sum()),
            stale=int(rows.stale.sum()),
            degraded=int(rows.degraded.sum()),
            high_risk=int(rows.high_risk.sum()),
            scores=rows.score,
            segments={
                f"{name}={value}": rows.score[values == value]
                for name, values in rows.segments.items()
                for value in dict.fromkeys(values)
            },
            labelled=Labelled() if self._labels is None else self._labels.of(rows),
        )


def _pairs(stable: Rows, canary: Rows) -> Floats:
    """Canary's score minus stable's of the same request and customer, in the order of stable's rows."""
    _, of_stable, of_canary = np.intersect1d(stable.key, canary.key, return_indices=True)
    order = np.argsort(of_stable)
    of_stable, of_canary = of_stable[order], of_canary[order]
    first = np.sort(np.unique(stable.user[of_stable], return_index=True)[1])
    differences: Floats = canary.score[of_canary[first]] - stable.score[of_stable[first]]
    return differences

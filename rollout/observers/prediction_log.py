"""What the workers logged (handlers/records/log.py), read once: closed segments, and spools as they grow.

A spool is an Arrow stream that a worker appends to; it becomes a segment with the same rows in the same
order. How far each was read is remembered, so that no row is read twice, however often we look. Each window
holds one row a customer, to which a look adds what is new: neither time nor memory grows with the requests.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from core.errors import ServingError
from handlers.identity import NOBODY
from handlers.records.segments import SEGMENT, SPOOL
from rollout.evidence import Arm, Floats, Labelled, none
from rollout.observers.observer import Opened

FIXED = ("request_id", "time", "variant", "user_id", "status", "overridden", "score", "decision")
FEATURE = "feature_"
OLDER = timedelta(minutes=15)
"""A segment is named after its first record: one that began so long before a window holds nothing of it."""
VARIANTS = ("stable", "canary")
RECENT = timedelta(minutes=10)
"""Rows are held so long after they were read, for a window that begins anew."""

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass
class _Source:
    """How far one spool, or the segment that it became, was read."""

    rows: int = 0
    position: int = 0
    schema: "pa.Schema | None" = None


@dataclass(frozen=True)
class Chunk:
    """Scored customers in columns; `key` of request and customer, `user` of the customer alone."""

    time_us: Integers
    """On our clock."""
    canary: Flags
    score: Floats
    missing: Flags
    stale: Flags
    degraded: Flags
    high_risk: Flags
    key: Integers
    user: Integers
    segments: dict[str, NDArray[Any]] = field(default_factory=dict)

    def rows(self, chosen: Flags | Integers) -> "Chunk":
        columns = {name: value[chosen] for name, value in vars(self).items() if name != "segments"}
        return Chunk(**columns, segments={name: value[chosen] for name, value in self.segments.items()})

    @classmethod
    def joined(cls, chunks: "Sequence[Chunk]") -> "Chunk":
        first = chunks[0]
        columns = {
            name: np.concatenate([getattr(chunk, name) for chunk in chunks])
            for name in vars(first)
            if name != "segments"
        }
        segments = {
            name: np.concatenate([chunk.segments[name] for chunk in chunks]) for name in first.segments
        }
        return cls(**columns, segments=segments)


@dataclass(frozen=True)
class Logged:
    """One window's customers: an Arm of each variant without the proxy's numbers, and pairs of a shadow.

    Each customer counts once, by their first record: who asks a hundred times is still one draw, and tests
    that take customers for independent would otherwise be surer than they may be.
    """

    stable: Arm = field(default_factory=Arm)
    canary: Arm = field(default_factory=Arm)
    pairs: Floats = field(default_factory=none)


@dataclass
class _Folded:
    """One window's rows: the first of each variant and customer; in a shadow all, pairs being of requests."""

    upto: int
    """Chunks that were taken in."""
    rows: Chunk | None = None
    version: int = 0

    def add(self, fresh: Chunk, mirror: bool) -> None:
        if not len(fresh.score):
            return
        rows = fresh if self.rows is None else Chunk.joined([self.rows, fresh])
        rows = rows.rows(np.argsort(rows.time_us, kind="stable"))
        if not mirror:
            whose = np.stack([rows.user, rows.canary.astype(np.int64)])
            rows = rows.rows(np.sort(np.unique(whose, axis=1, return_index=True)[1]))
        self.rows, self.version = rows, self.version + 1


class PredictionLogReader:
    """`folder`: of the segments. `segments`: features whose values are looked at apart. `clock_offset`: what
    the workers' clock shows more than ours.
    """

    def __init__(
        self, folder: Path, segments: Sequence[str] = (), clock_offset: timedelta = timedelta(0)
    ) -> None:
        self._folder, self._segments, self._offset = folder, tuple(segments), clock_offset
        self._sources: dict[str, _Source] = {}
        self._done: set[str] = set()
        self._chunks: list[Chunk] = []
        self._dropped = 0
        """Chunks that are older than any window can ask for."""
        self._windows: dict[tuple[int, bool], _Folded] = {}
        self._labels: tuple[tuple[int, int], pd.DataFrame] | None = None
        self._labels_within = timedelta(days=1)
        self._made: dict[tuple[Any, ...], Logged] = {}

    def labels(self, file: Path, horizon: timedelta, within: timedelta = timedelta(days=1)) -> None:
        """Take the outcomes known by now: Parquet of user_id (masked), event_timestamp, churned. A prediction
        looks `horizon` ahead, so that an outcome belongs to the one of its customer that was made so long
        before its moment, give or take `within`.
        """
        try:
            found = file.stat()
            state = (found.st_mtime_ns, found.st_size)
            if self._labels is not None and self._labels[0] == state:
                return
            table = pd.read_parquet(file, columns=["user_id", "event_timestamp", "churned"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError) as error:
            raise ServingError(f"labels {file}: {str(error).splitlines()[0]}") from None
        moments = pd.to_datetime(table["event_timestamp"], utc=True)
        labels = pd.DataFrame(
            {
                "user": [hash(user) for user in table["user_id"]],
                "at": moments.dt.as_unit("us").astype("int64") - _us(self._offset) - _us(horizon),
                "churned": table["churned"].astype(float),
            }
        )
        self._labels, self._labels_within = (state, labels.sort_values("at")), within
        self._made.clear()

    def read(self, since: datetime) -> None:
        """Take in what is new. Raises ServingError where the log cannot be read."""
        try:
            fresh = [self._taken(table, since) for table in self._new(since)]
        except (OSError, pa.ArrowException) as error:
            raise ServingError(f"prediction log {self._folder}: {str(error).splitlines()[0]}") from None
        self._chunks.extend(chunk for chunk in fresh if len(chunk.score))
        self._forget()

    def _forget(self) -> None:
        """Windows that the last look did not ask for, as they began anew, and rows that all others have."""
        looked = max((folded.upto for folded in self._windows.values()), default=0)
        self._windows = {key: folded for key, folded in self._windows.items() if folded.upto == looked}
        newest = max((int(chunk.time_us.max()) for chunk in self._chunks), default=0)
        while self._dropped < looked and self._chunks[0].time_us.max() < newest - _us(RECENT):
            self._chunks.pop(0)
            self._dropped += 1

    def logged(self, window: Opened) -> Logged:
        """What was read of this window so far. Records may come late, to closed windows too."""
        begin = _us(window.begun)
        end = np.iinfo(np.int64).max if window.ended is None else _us(window.ended)
        folded = self._windows.setdefault((begin, window.mirror), _Folded(self._dropped))
        for chunk in self._chunks[folded.upto - self._dropped :]:
            folded.add(chunk.rows(chunk.time_us >= begin), window.mirror)
        folded.upto = self._dropped + len(self._chunks)
        if folded.rows is None:
            return Logged()
        state = (begin, end, folded.version, window.mirror)
        if state not in self._made:
            self._made = {known: made for known, made in self._made.items() if known[0] != begin}
            self._made[state] = self._logged(folded.rows.rows(folded.rows.time_us < end), window.mirror)
        return self._made[state]

    def _logged(self, rows: Chunk, mirror: bool) -> Logged:
        stable, canary = rows.rows(~rows.canary), rows.rows(rows.canary)
        return Logged(
            self._arm(_each_once(stable)),
            self._arm(_each_once(canary)),
            _pairs(stable, canary) if mirror else none(),
        )

    def _arm(self, rows: Chunk) -> Arm:
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
            labelled=self._labelled(rows),
        )

    def _labelled(self, rows: Chunk) -> Labelled:
        if self._labels is None or not len(rows.score):
            return Labelled()
        scored = pd.DataFrame({"user": rows.user, "at": rows.time_us, "score": rows.score})
        matched = pd.merge_asof(
            scored,
            self._labels[1],
            on="at",
            by="user",
            direction="nearest",
            tolerance=_us(self._labels_within),
        ).dropna(subset=["churned"])
        return Labelled(matched["score"].to_numpy(), matched["churned"].to_numpy())

    def _taken(self, table: pa.Table, since: datetime) -> Chunk:
        """Answers about real customers from their own features: a what-if question does not count."""
        unwanted = pc.or_(
            pc.equal(table["user_id"], NOBODY),
            pc.greater(pc.fill_null(pc.list_value_length(table["overridden"]), 0), 0),
        )
        moments = table["time"].cast(pa.timestamp("us")).cast(pa.int64())
        early = pc.less(moments, _us(since) + _us(self._offset))
        known = pc.is_in(table["variant"], pa.array(VARIANTS))
        table = table.filter(pc.and_(pc.invert(pc.or_(unwanted, early)), known))
        status = table["status"]
        missing = pc.equal(status, "unknown")
        for name in table.column_names:
            if name.startswith(FEATURE) and table[name].null_count:
                missing = pc.or_(missing, pc.is_null(table[name]))
        users, requests = table["user_id"].to_pylist(), table["request_id"].to_pylist()
        return Chunk(
            time_us=table["time"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() - _us(self._offset),
            canary=pc.equal(table["variant"], "canary").to_numpy(),
            score=table["score"].to_numpy(),
            missing=missing.to_numpy(),
            stale=pc.equal(status, "stale").to_numpy(),
            degraded=pc.equal(status, "degraded").to_numpy(),
            high_risk=pc.equal(table["decision"], "High Risk").to_numpy(),
            key=np.array([hash(pair) for pair in zip(requests, users, strict=True)], dtype=np.int64),
            user=np.array([hash(user) for user in users], dtype=np.int64),
            segments={name: self._segment(table, name) for name in self._segments},
        )

    def _segment(self, table: pa.Table, name: str) -> NDArray[Any]:
        if FEATURE + name not in table.column_names:
            raise ServingError(
                f"rollout.segments: {name}: not a feature of the model; see the prediction log"
            )
        return np.array([str(value) for value in table[FEATURE + name].to_pylist()], dtype=object)

    def _new(self, since: datetime) -> Iterator[pa.Table]:
        oldest = since + self._offset - OLDER
        for spool in sorted(self._folder.glob(f".*{SPOOL}")):
            stem = spool.name.removeprefix(".").removesuffix(SPOOL)
            if stem not in self._done and _begun(stem) >= oldest:
                yield from self._grown(spool, self._sources.setdefault(stem, _Source()))
        for day in sorted(self._folder.glob("date=*")):
            if day.name < f"date={oldest:%Y-%m-%d}":
                continue
            for segment in sorted(day.glob(f"*{SEGMENT}")):
                stem = segment.name.removesuffix(SEGMENT)
                if stem in self._done:
                    continue
                if _begun(stem) >= oldest:
                    source = self._sources.pop(stem, _Source())
                    yield from _rest(segment, source.rows)
                self._done.add(stem)

    def _grown(self, spool: Path, source: _Source) -> Iterator[pa.Table]:
        """The whole messages that were appended since the last look."""
        try:
            file = pa.OSFile(str(spool))
        except FileNotFoundError:
            return  # it has become a segment
        with file:
            file.seek(source.position)
            batches = []
            while True:
                try:
                    message = pa.ipc.read_message(file)
                    if source.schema is None:
                        source.schema = pa.ipc.read_schema(message)
                    else:
                        batches.append(pa.ipc.read_record_batch(message, source.schema))
                except (EOFError, pa.ArrowInvalid, OSError):
                    break  # the end, or a message that is being written
                source.position = file.tell()
        if batches:
            table = pa.Table.from_batches(batches)
            source.rows += table.num_rows
            yield table


def _rest(segment: Path, read: int) -> Iterator[pa.Table]:
    with pq.ParquetFile(segment) as file:
        if file.metadata.num_rows > read:
            names = file.schema_arrow.names
            wanted = [name for name in names if name in FIXED or name.startswith(FEATURE)]
            yield file.read(columns=wanted).slice(read)


def _each_once(rows: Chunk) -> Chunk:
    return rows.rows(np.sort(np.unique(rows.user, return_index=True)[1]))


def _pairs(stable: Chunk, canary: Chunk) -> Floats:
    """Canary's score minus stable's of the same request and customer, in the order of stable's."""
    _, mine, theirs = np.intersect1d(stable.key, canary.key, return_indices=True)
    order = np.argsort(mine)
    mine, theirs = mine[order], theirs[order]
    first = np.sort(np.unique(stable.user[mine], return_index=True)[1])
    differences: Floats = canary.score[theirs[first]] - stable.score[mine[first]]
    return differences


def _begun(stem: str) -> datetime:
    return datetime.strptime(stem[:15] + "+0000", "%Y%m%dT%H%M%S%z")


def _us(moment: datetime | timedelta) -> int:
    length = moment if isinstance(moment, timedelta) else moment - datetime.fromisoformat("1970-01-01T00:00Z")
    return length // timedelta(microseconds=1)

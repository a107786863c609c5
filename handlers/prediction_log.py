"""What was predicted, for whom, from which features: a record a scored customer, written beside the requests.

The request hands its columns over and goes on: nothing here makes it wait or fail. A thread builds Arrow from
them and gives it to a sink (`log_segments`: Parquet files; `log_kafka`: a topic). When the sink cannot take
more, the queue fills up to QUEUE_ROWS and further records are dropped and counted. A clean stop writes all;
kill -9 loses what was handed over in the last TAKE_EVERY_S.

The schema, one for all models but for the features:

| column | type | |
|---|---|---|
| request_id | string | as answered |
| time | timestamp[us, UTC] | when the features were read |
| model_version, bundle_sha256 | string | which archive |
| variant | string | the deployment: stable, canary |
| user_id | string | masked |
| features_at | timestamp[us, UTC] | the moment the features look back from; null for an unknown customer |
| status | string | ok, stale, degraded, unknown |
| overridden | list of string | features that the caller gave for a what-if question |
| score, threshold | double | |
| decision | string | High Risk or Low Risk |
| latency_ms | double | of the batch that the request travelled in |
| feature_<name> | int64, double or string | every input of the network, null for missing |

`read_parquet('<folder>/*/*.parquet', union_by_name = true)` in DuckDB and `pandas.read_parquet('<folder>')`
read it, with a column `date` more from the folders' names.
"""

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from handlers.bundle import BundleError
from handlers.environment import number
from handlers.log_kafka import KafkaTopic
from handlers.log_segments import ParquetSegments
from handlers.packed import PackedColumns

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("churn.prediction_log")

QUEUE_ROWS = 100_000
TAKE_EVERY_S = 0.2
"""Small batches are gathered this long: Arrow costs by the call, and kill -9 loses no more than this."""
CLOSE_TIMEOUT_S = 4.0
"""Below the 5 s after which `serving/keeper.py` ends a worker that is still there."""


@dataclass(frozen=True, slots=True)
class Records:
    """The scored customers of one batch. `rows` has an entry a record; the other columns an entry a row."""

    time: datetime
    latency_ms: float
    request_ids: Sequence[str]
    """One a record."""
    rows: Sequence[int]
    """Record -> row: several requests may ask for one customer."""
    user_ids: Sequence[str]
    timestamps: Sequence[datetime | None]
    status: Sequence[str]
    scores: Sequence[float]
    columns: Mapping[str, Sequence[Any]]
    overridden: Mapping[int, Sequence[str]]
    """Row -> names, for what-if rows only."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What every record of this worker says."""

    model_version: str
    bundle_sha256: str
    variant: str
    threshold: float
    types: Mapping[str, str]
    """Input of the network -> its declared type."""


class Sink(Protocol):
    """Where records end. Called by the writer thread alone."""

    def open(self, schema: "pa.Schema") -> None:
        """Get ready; finish what a killed worker left. Raises OSError when that is impossible now."""

    def write(self, batch: "pa.RecordBatch") -> None:
        """Take the records. Raises OSError when none of them was taken: the same ones come again."""

    def tick(self) -> None:
        """Called several times a second: do what is due. Raises OSError; what failed is tried again."""

    def close(self) -> None:
        """Let nothing that was taken get lost. Raises OSError."""

    @property
    def lost(self) -> int:
        """Records that were taken and will not arrive."""


class PredictionLog:
    """A bounded queue and the thread that empties it into the sink."""

    def __init__(
        self,
        sink: Sink,
        origin: Origin,
        queue_rows: int = QUEUE_ROWS,
        take_every_s: float = TAKE_EVERY_S,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
    ) -> None:
        self._sink, self._origin = sink, origin
        self._queue_rows, self._take_every_s = queue_rows, take_every_s
        self._close_timeout_s = close_timeout_s
        self._queue: deque[Records] = deque()
        self._lock = threading.Lock()
        self._rows = 0
        """Handed over and not yet taken by the sink."""
        self._handed, self._written, self._dropped = 0, 0, 0
        self._failing = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()
        # the worker ends by sys.exit when its server closes the connection or says SIGTERM
        atexit.register(self.close)

    def append(self, records: Records) -> None:
        """Hand over; dropped and counted when the queue is full or the log is closed."""
        rows = len(records.rows)
        with self._lock:
            self._handed += rows
            if self._rows + rows > self._queue_rows or self._closing.is_set():
                self._dropped += rows
                return
            self._rows += rows
            self._queue.append(records)

    def counts(self) -> dict[str, int]:
        """Records handed over, written and dropped so far, and how many wait."""
        with self._lock:
            return {
                "handed": self._handed,
                "written": self._written - self._sink.lost,
                "dropped": self._dropped + self._sink.lost,
                "waiting": self._rows,
            }

    def close(self) -> None:
        """Write what waits and end. What the sink does not take within the time allowed is dropped."""
        atexit.unregister(self.close)
        self._closing.set()
        self._thread.join(self._close_timeout_s + 1)
        counts = self.counts()
        if counts["dropped"] or counts["waiting"]:
            log.error("records dropped: %d, not written: %d", counts["dropped"], counts["waiting"])

    def _run(self) -> None:
        schema = _schema(self._origin)
        opened = False
        held: pa.RecordBatch | None = None
        ending: float | None = None
        while True:
            closing = self._closing.wait(self._take_every_s)
            if closing and ending is None:
                ending = time.monotonic() + self._close_timeout_s
            try:
                if not opened:
                    self._sink.open(schema)
                    opened = True
                if held is None:
                    held = self._take(schema)
                if held is not None:
                    self._sink.write(held)
                    self._count(written=held.num_rows)
                    held = None
                self._sink.tick()
                if closing and not self._queue:
                    self._sink.close()
                    return
                self._recovered()
            except OSError as error:
                self._failed(error)
                if ending is not None:
                    if time.monotonic() > ending:
                        return
                    time.sleep(self._take_every_s)

    def _take(self, schema: "pa.Schema") -> "pa.RecordBatch | None":
        """All that waits, as one batch. Records that do not fit the schema are dropped, the others stay."""
        with self._lock:
            taken = list(self._queue)
            self._queue.clear()
        if not taken:
            return None
        import pyarrow as pa

        try:
            return to_arrow(taken, self._origin, schema)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            fitting = []
            for records in taken:
                try:
                    fitting.append(to_arrow([records], self._origin, schema))
                except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                    log.error("records that do not fit the schema: %s", type(error).__name__)
                    self._count(dropped=len(records.rows))
            return pa.concat_batches(fitting) if fitting else None

    def _count(self, written: int = 0, dropped: int = 0) -> None:
        with self._lock:
            self._written += written
            self._dropped += dropped
            self._rows -= written + dropped

    def _failed(self, error: OSError) -> None:
        if not self._failing:  # once an outage, not once a try
            log.error("the prediction log cannot be written: %s; trying on", error.strerror or error)
        self._failing = True

    def _recovered(self) -> None:
        if self._failing:
            log.warning("the prediction log can be written again")
        self._failing = False


def to_arrow(batches: Sequence[Records], origin: Origin, schema: "pa.Schema") -> "pa.RecordBatch":
    """One RecordBatch of all records, in the order handed over."""
    import pyarrow as pa

    # features that came packed are joined and turned as arrays, never touched one by one
    runs = [
        _arrow(list(run), origin, schema, packed=packed)
        for packed, run in groupby(batches, lambda batch: isinstance(batch.columns, PackedColumns))
    ]
    return runs[0] if len(runs) == 1 else pa.concat_batches(runs)


def _arrow(
    batches: Sequence[Records], origin: Origin, schema: "pa.Schema", *, packed: bool
) -> "pa.RecordBatch":
    import pyarrow as pa

    counts = [len(batch.rows) for batch in batches]
    total = sum(counts)
    scores = np.array(_gathered(batches, [batch.scores for batch in batches]), dtype=np.float64)
    risky = scores > origin.threshold

    def same(value: Any) -> "pa.Array":
        return pa.repeat(value, total)

    def a_batch(values: Sequence[Any], kind: "pa.DataType") -> "pa.Array":
        return pa.array(values, kind).take(np.repeat(np.arange(len(counts)), counts))

    columns = {
        "request_id": list(chain.from_iterable(batch.request_ids for batch in batches)),
        "time": a_batch([batch.time for batch in batches], schema.field("time").type),
        "model_version": same(origin.model_version),
        "bundle_sha256": same(origin.bundle_sha256),
        "variant": same(origin.variant),
        "user_id": _gathered(batches, [batch.user_ids for batch in batches]),
        "features_at": _gathered(batches, [batch.timestamps for batch in batches]),
        "status": _gathered(batches, [batch.status for batch in batches]),
        "overridden": [batch.overridden.get(row, ()) for batch in batches for row in batch.rows]
        if any(batch.overridden for batch in batches)
        else pa.ListArray.from_arrays(np.zeros(total + 1, np.int32), pa.array([], pa.string())),
        "score": scores,
        "threshold": same(origin.threshold),
        "decision": np.where(risky, "High Risk", "Low Risk"),
        "latency_ms": a_batch([batch.latency_ms for batch in batches], schema.field("latency_ms").type),
    }
    if packed:
        together = PackedColumns.joined([_taken(batch) for batch in batches])
        columns |= {
            f"feature_{name}": _feature(together, name, dtype) for name, dtype in origin.types.items()
        }
    else:
        for name in origin.types:
            columns[f"feature_{name}"] = _gathered(batches, [batch.columns[name] for batch in batches])
    arrays = [
        columns[field.name].cast(field.type)
        if isinstance(columns[field.name], pa.Array)
        else pa.array(columns[field.name], type=field.type, from_pandas=True)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _taken(batch: Records) -> PackedColumns:
    """The features of the batch's records."""
    columns = batch.columns
    assert isinstance(columns, PackedColumns)
    return columns if batch.rows == range(len(columns.rows)) else columns.taken(batch.rows)


def _feature(columns: PackedColumns, name: str, dtype: str) -> Any:
    """What `pa.array` makes a column of: an array with NaN for null, or one of integers with a mask."""
    if dtype == "float64":
        return columns.numbers(name)
    if dtype == "int64":
        import pyarrow as pa

        numbers, there = columns.numbers(name), columns.there(name)
        return pa.array(np.where(there, numbers, 0).astype(np.int64), mask=~there)
    return columns[name]


def _gathered(batches: Sequence[Records], columns: Sequence[Sequence[Any]]) -> list[Any]:
    """Values of the records' rows, batch after batch."""
    values: list[Any] = []
    for batch, column in zip(batches, columns, strict=True):
        held = column.tolist() if isinstance(column, np.ndarray) else column
        if batch.rows == range(len(held)):
            values.extend(held)
        else:
            values.extend(map(held.__getitem__, batch.rows))
    return values


def _schema(origin: Origin) -> "pa.Schema":
    import pyarrow as pa  # here, in the thread: a worker's start does not wait for it

    text, moment, number = pa.string(), pa.timestamp("us", tz="UTC"), pa.float64()
    fixed = [
        ("request_id", text), ("time", moment), ("model_version", text), ("bundle_sha256", text),
        ("variant", text), ("user_id", text), ("features_at", moment), ("status", text),
        ("overridden", pa.list_(text)), ("score", number), ("threshold", number), ("decision", text),
        ("latency_ms", number),
    ]  # fmt: skip
    kinds = {"int64": pa.int64(), "float64": number, "string": text}
    return pa.schema([*fixed, *((f"feature_{name}", kinds[kind]) for name, kind in origin.types.items())])


def open_log(environment: Mapping[str, str], origin: Origin) -> PredictionLog | None:
    """The log that CHURN_PREDICTION_LOG (a folder) or CHURN_PREDICTION_LOG_KAFKA (`host:port/topic`) names.

    Raises BundleError when both do, or when the one cannot be used.
    """
    folder, kafka = environment.get("CHURN_PREDICTION_LOG"), environment.get("CHURN_PREDICTION_LOG_KAFKA")
    if folder and kafka:
        raise BundleError("CHURN_PREDICTION_LOG and CHURN_PREDICTION_LOG_KAFKA: set one of them")
    if folder:
        window_s = number(environment, "CHURN_PREDICTION_LOG_WINDOW_S", "5", above=0.0)
        return PredictionLog(_segments(Path(folder), window_s), origin)
    if kafka:
        return PredictionLog(_topic(kafka), origin)
    return None


def _segments(folder: Path, window_s: float) -> ParquetSegments:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(f"CHURN_PREDICTION_LOG: {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BundleError(f"CHURN_PREDICTION_LOG: {folder}: no permission to write")
    return ParquetSegments(folder, window_s)


def _topic(address: str) -> KafkaTopic:
    brokers, _, topic = address.partition("/")
    if not brokers or not topic or "/" in topic:
        raise BundleError(f"CHURN_PREDICTION_LOG_KAFKA: expected host:port/topic, found {address!r}")
    if find_spec("confluent_kafka") is None:
        raise BundleError("CHURN_PREDICTION_LOG_KAFKA: not installed: pip install confluent-kafka")
    return KafkaTopic(brokers, topic)

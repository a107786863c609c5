"""What was predicted, for whom, from which features: a record a scored customer, written beside the requests.

The request hands its columns over and goes on: nothing here makes it wait or fail. A thread builds Arrow from
them (`log_records`) and gives it to a sink (`log_segments`: Parquet files; `log_kafka`: a topic). When the
sink cannot take more, the queue fills up to QUEUE_ROWS and further records are dropped and counted. A clean
stop writes all; kill -9 loses what was handed over in the last TAKE_EVERY_S.

Whatever a sink raises, the thread goes on. After an OSError the same sink is tried again; after any other
error the sink is let go and a new one made.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from handlers.records.record import Origin, Records, schema_of, to_arrow

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("churn.prediction_log")

QUEUE_ROWS = 100_000
TAKE_EVERY_S = 0.2
"""Small batches are gathered this long: Arrow costs by the call, and kill -9 loses no more than this."""
LONGEST_WAIT_S = 2.0
"""Between two tries of a sink that fails; the wait is doubled from TAKE_EVERY_S on."""
CLOSE_TIMEOUT_S = 4.0
"""Below the 5 s after which `serving/keeper.py` ends a worker that is still there."""
TRIES = 3
"""New sinks that may fail at one batch, before the batch is taken for the cause and dropped."""


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

    def abandon(self) -> None:
        """After an error that nobody expected: let go of files and connections, so that a new sink can go on.

        What was taken and cannot arrive any more is counted in `lost`.
        """

    @property
    def lost(self) -> int:
        """Records that were taken and will not arrive."""


class PredictionLog:
    """A bounded queue and the thread that empties it into the sink. `close` ends it."""

    def __init__(
        self,
        make_sink: Callable[[], Sink],
        origin: Origin,
        queue_rows: int = QUEUE_ROWS,
        take_every_s: float = TAKE_EVERY_S,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
    ) -> None:
        self._make_sink, self._origin = make_sink, origin
        self._queue_rows, self._take_every_s = queue_rows, take_every_s
        self._close_timeout_s = close_timeout_s
        self._queue: deque[Records] = deque()
        self._lock = threading.Lock()
        self._rows = 0
        """Handed over and not yet taken by the sink."""
        self._handed, self._written, self._dropped = 0, 0, 0
        self._failures = 0
        self._failing = 0
        """Failures since the last success."""
        self._schema: pa.Schema | None = None
        self._sink: Sink | None = None
        self._lost_before = 0
        """By sinks that are no longer used."""
        self._held: pa.RecordBatch | None = None
        """Taken from the queue; the sink has to take it next."""
        self._tries = 0
        self._closing = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

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
            lost = self._lost_before + (self._sink.lost if self._sink is not None else 0)
            return {
                "handed": self._handed,
                "written": self._written - lost,
                "dropped": self._dropped + lost,
                "waiting": self._rows,
            }

    def failures(self) -> int:
        """How often a sink has raised."""
        return self._failures

    def close(self) -> None:
        """Write what waits and end. What the sink does not take in time is dropped and counted."""
        self._closing.set()
        self._thread.join(self._close_timeout_s + 1)
        with self._lock:
            self._ended = True
            self._dropped += self._rows
            self._rows = 0
        if dropped := self.counts()["dropped"]:
            log.error("records dropped since the start: %d", dropped)

    def _run(self) -> None:
        ending: float | None = None
        while True:
            closing = self._closing.wait(self._wait_s())
            if closing and ending is None:
                ending = time.monotonic() + self._close_timeout_s
            try:
                if self._step(closing):
                    return
                self._recovered()
            except OSError as error:
                self._failed(str(error.strerror or error))
            except Exception as error:  # of a client or of Arrow; the thread must not end by any of them
                self._failed(type(error).__name__)
                self._renew()
            if ending is not None and self._failing:
                if time.monotonic() > ending:
                    return
                time.sleep(self._take_every_s)

    def _wait_s(self) -> float:
        return min(self._take_every_s * float(2 ** min(self._failing, 16)), LONGEST_WAIT_S)

    def _step(self, closing: bool) -> bool:
        """Give the sink what waits; whether that was the last."""
        if self._schema is None:
            self._schema = schema_of(self._origin)
        if self._sink is None:
            sink = self._make_sink()
            sink.open(self._schema)
            self._sink = sink
        if self._held is None:
            self._held = self._take(self._schema)
        if self._held is not None:
            self._sink.write(self._held)
            self._count(written=self._held.num_rows)
            self._held, self._tries = None, 0
        self._sink.tick()
        if closing and not self._queue:
            self._sink.close()
            return True
        return False

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
        except Exception:  # whatever is wrong with one of them, the others are good
            fitting = []
            for records in taken:
                try:
                    fitting.append(to_arrow([records], self._origin, schema))
                except Exception as error:
                    log.error("records that do not fit the schema: %s", type(error).__name__)
                    self._count(dropped=len(records.rows))
            return pa.concat_batches(fitting) if fitting else None

    def _count(self, written: int = 0, dropped: int = 0) -> None:
        with self._lock:
            if self._ended:
                return  # `close` has counted them as dropped
            self._written += written
            self._dropped += dropped
            self._rows -= written + dropped

    def _failed(self, reason: str) -> None:
        if not self._failing:  # once an outage, not once a try
            log.error("the prediction log cannot be written: %s; trying on", reason)
        self._failures += 1
        self._failing += 1

    def _recovered(self) -> None:
        if self._failing:
            log.warning("the prediction log can be written again")
        self._failing = 0

    def _renew(self) -> None:
        """Let the sink go; the next step makes a new one. A batch at which several fail is dropped."""
        if (sink := self._sink) is not None:
            try:
                sink.abandon()
            except Exception as error:
                log.error("the sink cannot be let go in order: %s", type(error).__name__)
            with self._lock:
                self._lost_before += sink.lost
                self._sink = None
        if self._held is not None:
            self._tries += 1
            if self._tries >= TRIES:
                log.error("a batch of %d records fails with every sink; dropped", self._held.num_rows)
                self._count(dropped=self._held.num_rows)
                self._held, self._tries = None, 0

"""Moves waiting records into a sink, and replaces a sink that failed."""

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from handlers.records.record import Origin, schema_of, to_arrow, with_dropped
from handlers.records.sink import Sink
from handlers.records.waiting import WaitingRecords

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("churn.prediction_log")

MOST_SINKS = 3
"""A batch that fails with so many sinks is taken for the cause, and is dropped."""


class SinkWriter:
    """The open sink and the batch that it has to accept next. Used by one thread alone, except `lost`."""

    def __init__(self, make_sink: Callable[[], Sink], origin: Origin, waiting: WaitingRecords) -> None:
        self._make_sink, self._origin, self._waiting = make_sink, origin, waiting
        self._schema: pa.Schema | None = None
        self._sink: Sink | None = None
        self._lost_by_former_sinks = 0
        self._counting = threading.Lock()
        """Held while the two are read or changed together."""
        self._batch: pa.RecordBatch | None = None
        self._stated, self._stated_with_batch = 0, 0
        """Dropped records that the written records state, and that they will state with the present batch."""
        self._failed_sinks = 0
        """Sinks that failed while they had to accept the present batch."""

    @property
    def lost(self) -> int:
        """Records that a sink accepted and could not store."""
        with self._counting:
            return self._lost_by_former_sinks + (self._sink.lost if self._sink is not None else 0)

    def write(self, *, last: bool) -> bool:
        """Writes what waits; with `last` closes the sink when nothing waits any more, and returns True then.

        Raises what the sink raises. After an OSError the next call tries the same sink again.
        """
        if self._schema is None:
            self._schema = schema_of(self._origin)
        if self._sink is None:
            sink = self._make_sink()
            sink.open(self._schema)
            self._sink = sink
        if self._batch is None:
            self._batch = self._with_drops(self._next_batch(self._schema))
        if self._batch is not None:
            self._sink.write(self._batch)
            self._finish_batch(written=self._batch.num_rows)
        self._sink.tick()
        if last and self._waiting.is_empty():
            self._sink.close()
            return True
        return False

    def replace_sink(self) -> None:
        """Abandons the sink; the next `write` makes a new one. Drops a batch that failed with MOST_SINKS."""
        if (sink := self._sink) is not None:
            try:
                sink.abandon()
            except Exception as error:
                log.error("the sink cannot be abandoned in order: %s", type(error).__name__)
            with self._counting:
                self._sink = None
                self._lost_by_former_sinks += sink.lost
        if self._batch is not None:
            self._failed_sinks += 1
            if self._failed_sinks >= MOST_SINKS:
                log.error("a batch of %d records fails with every sink; dropped", self._batch.num_rows)
                self._finish_batch(dropped=self._batch.num_rows)

    def _finish_batch(self, written: int = 0, dropped: int = 0) -> None:
        self._waiting.count(written, dropped)
        if written:
            self._stated = self._stated_with_batch
        self._batch, self._failed_sinks = None, 0

    def _with_drops(self, batch: "pa.RecordBatch | None") -> "pa.RecordBatch | None":
        """The batch, which states what was dropped before it, so that readers of the log learn of it."""
        self._stated_with_batch = self._waiting.counts(self.lost)["dropped"]
        if batch is None or self._stated_with_batch <= self._stated:
            return batch
        return with_dropped(batch, self._stated_with_batch - self._stated)

    def _next_batch(self, schema: "pa.Schema") -> "pa.RecordBatch | None":
        """All that waits, as one batch, without records that do not fit the schema, which are dropped."""
        taken = self._waiting.take_all()
        if not taken:
            return None
        import pyarrow as pa

        try:
            return to_arrow(taken, self._origin, schema)
        except Exception:  # of any kind, since the cause is one of the records
            fitting = []
            for records in taken:
                try:
                    fitting.append(to_arrow([records], self._origin, schema))
                except Exception as error:
                    log.error("records that do not fit the schema: %s", type(error).__name__)
                    self._waiting.count(dropped=len(records.rows))
            return pa.concat_batches(fitting) if fitting else None

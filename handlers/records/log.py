"""The prediction log: one record for each scored customer, written by a thread of its own.

A request hands its columns over and continues: the log never makes it wait or fail. The thread converts them
to Arrow (`record.py`) and gives them to a sink (`segments.py`: Parquet files; `kafka.py`: a topic). When the
sink cannot accept more, up to QUEUE_ROWS records wait, and further ones are dropped and counted. A clean stop
writes all records; kill -9 loses what was handed over in the last TAKE_EVERY_S.

No error of a sink ends the thread. After an OSError the same sink is tried again; after any other error it is
replaced by a new one.
"""

import logging
import threading
import time
from collections.abc import Callable

from handlers.records.record import Origin, Records
from handlers.records.sink import Sink
from handlers.records.waiting import WaitingRecords
from handlers.records.writer import SinkWriter

log = logging.getLogger("churn.prediction_log")

QUEUE_ROWS = 100_000
TAKE_EVERY_S = 0.2
"""Batches are collected for so long, since each call of Arrow takes time; kill -9 loses no more than this."""
LONGEST_WAIT_S = 2.0
"""Between two tries of a sink that fails; the wait starts at TAKE_EVERY_S and is doubled."""
CLOSE_TIMEOUT_S = 4.0
"""Shorter than the 5 s after which `serving/process/reaper.py` kills a worker that has not ended."""


class PredictionLog:
    """Accepts records, and writes them in a thread of its own until `close`."""

    def __init__(
        self,
        make_sink: Callable[[], Sink],
        origin: Origin,
        queue_rows: int = QUEUE_ROWS,
        take_every_s: float = TAKE_EVERY_S,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
    ) -> None:
        self._waiting = WaitingRecords(queue_rows)
        self._writer = SinkWriter(make_sink, origin, self._waiting)
        self._take_every_s, self._close_timeout_s = take_every_s, close_timeout_s
        self._failures = 0
        self._failures_in_a_row = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def append(self, records: Records) -> None:
        """Hands records over; they are dropped and counted when the queue is full or the log is closed."""
        self._waiting.append(records)

    def counts(self) -> dict[str, int]:
        """Records `handed`, `written` and `dropped` since the start, and how many are `waiting`."""
        return self._waiting.counts(self._writer.lost)

    def failures(self) -> int:
        """How often a sink has raised an error."""
        return self._failures

    def close(self) -> None:
        """Writes what waits and ends the thread. What is not written in time is dropped and counted."""
        self._waiting.close()
        self._closing.set()
        self._thread.join(self._close_timeout_s + 1)
        self._waiting.drop_rest()
        if dropped := self.counts()["dropped"]:
            log.error("records dropped since the start: %d", dropped)

    def _run(self) -> None:
        give_up_at: float | None = None
        while True:
            closing = self._closing.wait(self._wait_s())
            if closing and give_up_at is None:
                give_up_at = time.monotonic() + self._close_timeout_s
            try:
                if self._writer.write(last=closing):
                    return
                self._recovered()
            except OSError as error:
                self._failed(str(error.strerror or error))
            except Exception as error:  # of a client library or of Arrow; none of them may end the thread
                self._failed(type(error).__name__)
                self._writer.replace_sink()
            if give_up_at is not None and self._failures_in_a_row:
                if time.monotonic() > give_up_at:
                    return
                time.sleep(self._take_every_s)

    def _wait_s(self) -> float:
        return min(self._take_every_s * float(2 ** min(self._failures_in_a_row, 16)), LONGEST_WAIT_S)

    def _failed(self, reason: str) -> None:
        if not self._failures_in_a_row:  # one message for each outage
            log.error("the prediction log cannot be written: %s; trying again", reason)
        self._failures += 1
        self._failures_in_a_row += 1

    def _recovered(self) -> None:
        if self._failures_in_a_row:
            log.warning("the prediction log can be written again")
        self._failures_in_a_row = 0

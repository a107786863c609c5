"""The queue of the prediction log: records that wait for the sink, and the counts of all records."""

import threading
from collections import deque

from handlers.records.record import Records


class WaitingRecords:
    """A bounded queue between the thread that answers requests and the thread that writes records."""

    def __init__(self, most_rows: int) -> None:
        self._most_rows = most_rows
        self._lock = threading.Lock()
        self._batches: deque[Records] = deque()
        self._rows = 0
        """Accepted by `append`, and neither written nor dropped yet."""
        self._handed, self._written, self._dropped = 0, 0, 0
        self._is_open = True
        self._is_final = False

    def append(self, records: Records) -> None:
        """Adds the records; drops and counts them when there is no room or the queue is closed."""
        rows = len(records.rows)
        with self._lock:
            self._handed += rows
            if self._rows + rows > self._most_rows or not self._is_open:
                self._dropped += rows
                return
            self._rows += rows
            self._batches.append(records)

    def take_all(self) -> list[Records]:
        """Removes all batches from the queue. Their rows wait until `count` is called for them."""
        with self._lock:
            taken = list(self._batches)
            self._batches.clear()
        return taken

    def is_empty(self) -> bool:
        return not self._batches

    def count(self, written: int = 0, dropped: int = 0) -> None:
        """So many of the waiting rows are written or dropped."""
        with self._lock:
            if self._is_final:
                return  # `drop_rest` has counted these rows as dropped
            self._written += written
            self._dropped += dropped
            self._rows -= written + dropped

    def counts(self, lost: int) -> dict[str, int]:
        """Rows handed over, written, dropped and waiting; `lost` of the written ones count as dropped."""
        with self._lock:
            return {
                "handed": self._handed,
                "written": self._written - lost,
                "dropped": self._dropped + lost,
                "waiting": self._rows,
            }

    def close(self) -> None:
        """From now on `append` drops."""
        with self._lock:
            self._is_open = False

    def drop_rest(self) -> None:
        """Counts all waiting rows as dropped; later calls of `count` change nothing."""
        with self._lock:
            self._is_final = True
            self._dropped += self._rows
            self._rows = 0

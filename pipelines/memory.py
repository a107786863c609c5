"""Samples the peak memory of this process and its descendants, a server's JVM included.

The measure is the proportional set size (PSS), in which a page that several processes share, such as
PyTorch's libraries, counts once. The sum of resident sizes would count it once for each server.
"""

import threading
from types import TracebackType

import psutil


class PeakMemory:
    """`bytes`: the largest memory of the process tree while the context is open."""

    def __init__(self, interval_s: float = 1.0) -> None:
        self.bytes = 0
        self._interval_s = interval_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()

    def _sample(self) -> None:
        this = psutil.Process()
        while True:
            total = 0
            for process in (this, *this.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue  # the process ended after it was listed
            self.bytes = max(self.bytes, total)
            if self._closed.wait(self._interval_s):
                return

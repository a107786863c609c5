"""Peak memory of this process and all it started, sampled: a server's JVM counts too.

A page that several processes share, such as PyTorch's libraries, counts once: each process has its part of
it (PSS). The sum of resident sizes would count such pages once for each server.
"""

import threading
from types import TracebackType

import psutil


class PeakMemory:
    """Bytes of memory that the process tree holds at their highest, while the context is open."""

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
        me = psutil.Process()
        while True:
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue  # it ended between being listed and being read
            self.bytes = max(self.bytes, total)
            if self._closed.wait(self._interval_s):
                return

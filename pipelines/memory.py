"""Peak memory of this process and all it started, sampled: a server's JVM counts too."""

import threading
from types import TracebackType

import psutil


class PeakMemory:
    """Resident bytes of the process tree at their highest, while the context is open."""

    def __init__(self, interval_s: float = 0.25) -> None:
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
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:  # it ended between being listed and being read
                    continue
            self.bytes = max(self.bytes, total)
            if self._closed.wait(self._interval_s):
                return

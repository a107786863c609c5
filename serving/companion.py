"""A loop beside the served model, in a thread that is started again when it ends."""

import threading
import time
from collections.abc import Callable

STOPS_WITHIN_S, AGAIN_AFTER_S = 20.0, 5.0


class CompanionThread:
    """`run(stop)` returns soon after the event `stop` is set. None: there is no companion."""

    def __init__(self, run: Callable[[threading.Event], None] | None, stop: threading.Event) -> None:
        self._run, self._stop = run, stop
        self._thread, self._next_start = threading.Thread(), 0.0

    def ensure(self) -> None:
        """Start it unless it runs, was started less than AGAIN_AFTER_S ago, or `stop` is set."""
        if self._run is None or self._stop.is_set() or self._thread.is_alive():
            return
        if time.monotonic() >= self._next_start:
            self._next_start = time.monotonic() + AGAIN_AFTER_S
            self._thread = threading.Thread(
                target=self._run, args=(self._stop,), name="companion", daemon=True
            )
            self._thread.start()

    def join(self) -> None:
        """Wait, for at most STOPS_WITHIN_S, until it has ended."""
        if self._thread.is_alive():
            self._thread.join(STOPS_WITHIN_S)

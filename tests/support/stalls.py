"""How long the machine made this process wait, so that a bound on our own waits need not be widened."""

import threading
import time
from types import TracebackType
from typing import Self

TICK_S = 0.01


class Stalls:
    """A thread of short sleeps: what a sleep takes beyond its time is a stall of the machine."""

    def __init__(self) -> None:
        self._found: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def since(self, began: float) -> float:
        """Seconds by which sleeps took too long since this moment of the monotonic clock."""
        time.sleep(2 * TICK_S)  # a stall that has just ended is measured by then
        return sum(late for ended, late in tuple(self._found) if ended > began)

    def _measure(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            time.sleep(TICK_S)
            ended = time.monotonic()
            self._found.append((ended, ended - began - TICK_S))

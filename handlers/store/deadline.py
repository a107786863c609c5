"""Deadlines, as times of time.monotonic, and calls that return at their deadline although they block."""

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from handlers.store.stored import FeatureStoreUnavailable

T = TypeVar("T")


def remaining(deadline: float) -> float:
    """Seconds until `deadline`. Raises FeatureStoreUnavailable when it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise FeatureStoreUnavailable("timeout")
    return left


class OneAtATime:
    """Runs calls in a separate thread. A call waits while an earlier one blocks, so that threads do not
    accumulate.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call[Any]] = SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], T], deadline: float) -> T:
        """Return the result of `function`, or raise its error. Raises FeatureStoreUnavailable at `deadline`.

        The function then continues, because a thread cannot be stopped; its later result is ignored.
        """
        if not self._idle.wait(remaining(deadline)):
            raise FeatureStoreUnavailable("timeout: an earlier read still hangs")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="feature-store", daemon=True)
            self._thread.start()
        self._idle.clear()
        call = _Call(function)
        self._calls.put(call)
        try:
            return call.wait(max(deadline - time.monotonic(), 0))
        except Empty:
            raise FeatureStoreUnavailable("timeout") from None

    def _work(self) -> None:
        while True:
            self._calls.get().run()
            self._idle.set()


class _Call(Generic[T]):
    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._result: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def run(self) -> None:
        try:
            self._result.put((self._function(), None))
        except BaseException as error:
            self._result.put((None, error))

    def wait(self, timeout_s: float) -> T:
        """Raises queue.Empty when there is no result in time, or the error of the function."""
        result, error = self._result.get(timeout=timeout_s)
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

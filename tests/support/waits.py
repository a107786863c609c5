"""Waits for a condition, and free ports."""

import socket
import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def within(
    seconds: float,
    condition: Callable[[], Found],
    problem: str | Callable[[], object] = "the condition did not come true",
    ignored: type[Exception] | tuple[type[Exception], ...] = (),
) -> Found:
    """The first true value that `condition` returns; AssertionError with `problem` after `seconds`.

    Exceptions of the types `ignored` count as "not yet".
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := condition():
                return found
        except ignored:
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {problem() if callable(problem) else problem}")
        time.sleep(0.02)


def seconds_until(condition: Callable[[], object], limit: float, **options: object) -> float:
    """How many seconds passed until `condition` was true; AssertionError after `limit`."""
    began = time.monotonic()
    within(limit, condition, **options)  # type: ignore[arg-type]
    return time.monotonic() - began


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

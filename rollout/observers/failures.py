"""Which customers failed: from a small file that Envoy writes while there is a canary.

A line is a failed request: its moment, whose slot it was, and a keyed checksum of the customer (empty where
no customer is known; such a request is a customer of its own). Read once, as it grows. Each customer counts
once a rollout, in the window of the first failure; a window in which requests are copied counts nobody, since
both variants are asked by the same customers in it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import ServingError
from rollout.observers.observer import Opened

SLOTS = {"stable": "stable", "canary": "canary"}


@dataclass
class Failing:
    """Customers of one window."""

    stable: int = 0
    canary: int = 0


class FailureReader:
    def __init__(self) -> None:
        self._file: Path | None = None
        self._position = 0
        self._nameless = 0
        self._failures: list[tuple[float, str, str]] = []
        """When, of which variant, and whose."""

    def read(self, file: Path) -> None:
        """Take in what is new. Another file is another Envoy's, whose checksums are others.

        Raises ServingError where it cannot be read; one that is not there yet has no failures.
        """
        if file != self._file:
            self._file, self._position = file, 0
        try:
            with file.open("rb") as opened:
                opened.seek(self._position)
                content = opened.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise ServingError(f"failures by customer, {file}: {error.strerror}") from None
        whole = content[: content.rfind(b"\n") + 1]
        self._position += len(whole)
        for line in whole.splitlines():
            found = json.loads(line)
            variant = SLOTS.get(found["slot"] or "")
            if variant is not None:
                self._nameless += not found["who"]
                who = found["who"] or f"nobody {self._nameless}"
                self._failures.append((float(found["time"]), variant, who))

    def failing(self, windows: Sequence[Opened]) -> list[Failing | None]:
        """Of each window; None of a shadow."""
        found = [None if window.mirror else Failing() for window in windows]
        spans = [
            (w.begun.timestamp(), w.ended.timestamp() if w.ended else float("inf"), counted)
            for w, counted in zip(windows, found, strict=True)
            if counted is not None
        ]
        before: set[str] = set()
        needed = []
        for at, variant, who in sorted(self._failures):
            if who in before:
                continue  # and never needed again: an outage is a line a request
            window = next((counted for begin, end, counted in spans if begin <= at < end), None)
            needed.append((at, variant, who))
            if window is not None:
                before.add(who)
                setattr(window, variant, getattr(window, variant) + 1)
        self._failures = needed
        return list(found)

"""The customers with failed requests, from a file that Envoy writes while there is a canary.

A line is a failed request: its time, the variant's slot, and a keyed checksum of the customer (empty where no
customer is known; such a request counts as a customer of its own). The file is read once, as it grows. Each
customer counts once a rollout, in the window of the first failure. In a shadow none is counted, since both
variants get the requests of the same customers.
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
    """Customers with a failure in one window, for each variant."""

    stable: int = 0
    canary: int = 0


class FailureReader:
    def __init__(self) -> None:
        self._file: Path | None = None
        self._position = 0
        self._nameless = 0
        self._failures: list[tuple[float, str, str]] = []
        """Time (Unix seconds), variant and customer."""

    def read(self, file: Path) -> None:
        """Read what is new. Another file is of another Envoy, whose key for checksums differs.

        Raises ServingError where it cannot be read; one that does not exist yet has no failures.
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
                who = found["who"] or f"unknown {self._nameless}"
                self._failures.append((float(found["time"]), variant, who))

    def failing(self, windows: Sequence[Opened]) -> list[Failing | None]:
        """For each window; None for a shadow."""
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
                continue  # not needed again; in an outage there are as many lines as requests
            window = next((counted for begin, end, counted in spans if begin <= at < end), None)
            needed.append((at, variant, who))
            if window is not None:
                before.add(who)
                setattr(window, variant, getattr(window, variant) + 1)
        self._failures = needed
        return list(found)

"""The counts of each look, added up to evidence in blocks of time, and stored in the database.

Rules judge evidence that is made of these counts alone. So a past rollout can be judged again exactly as it
was, or under another configuration (rollout/again.py).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rollout.config import RolloutConfig
from rollout.counts import Counted, Tally, counted, grown
from rollout.evidence import Evidence, Window
from rollout.observers.observer import Observer, Opened
from rollout.rules.latency import Latency

Change = dict[str, Counted]
"""Begin of a window -> its counts since the last look."""


class Tallies:
    """Counts of a rollout's windows, by their begin."""

    def __init__(self, config: RolloutConfig) -> None:
        self._block_s = config.block_s
        self._objective_ms = (config.rules.latency or Latency()).objective_ms
        self._of: dict[str, Tally] = {}
        self._closed: dict[str, tuple[int, Window]] = {}
        self._changes: dict[str, int] = {}

    def total(self, opened: Opened) -> Counted:
        return self._tally(opened.begun.isoformat()).total

    def add(self, at: datetime, change: Mapping[str, Mapping[str, float]]) -> None:
        for begun, counts in change.items():
            self._tally(begun).add(counts, (at - datetime.fromisoformat(begun)).total_seconds())
            self._changes[begun] = self._changes.get(begun, 0) + 1

    def evidence(self, windows: Sequence[Opened], now: datetime) -> Evidence:
        return Evidence(tuple(self._window(window, now) for window in windows))

    def _window(self, opened: Opened, now: datetime) -> Window:
        begun = opened.begun.isoformat()
        changes, known = self._changes.get(begun, 0), self._closed.get(begun)
        if known is not None and known[0] == changes:
            return known[1]
        over = opened.ended is not None and opened.ended <= now
        seconds = ((opened.ended if over and opened.ended else now) - opened.begun).total_seconds()
        made = self._tally(begun).window(opened.weight, opened.mirror, seconds, over, self._objective_ms)
        if over:
            self._closed[begun] = changes, made
        return made

    def _tally(self, begun: str) -> Tally:
        return self._of.setdefault(begun, Tally(self._block_s))


class Recorded:
    """An observer that records its looks. `before`: the stored looks of this rollout, the oldest first.

    A caller writes what `unsaved` returns and then calls `saved`; without that, `unsaved` returns it again.
    """

    def __init__(
        self,
        inner: Observer,
        config: RolloutConfig,
        before: Sequence[tuple[datetime, Mapping[str, Any]]] = (),
    ) -> None:
        self._inner = inner
        self._tallies = Tallies(config)
        self._unsaved: dict[datetime, Change] = {}
        self._last: dict[str, Counted] = {}
        """Each window's last report of the observer: less than the total after a restart of the proxy."""
        for at, change in before:
            self._tallies.add(at, change)

    def mark(self) -> dict[str, float]:
        return self._inner.mark()

    def observe(self, windows: Sequence[Opened], now: datetime) -> Evidence:
        """Raises ServingError as the observer does, and records nothing then."""
        seen = self._inner.observe(windows, now).windows
        change = {}
        for opened, window in zip(windows, seen, strict=True):
            begun, counts = opened.begun.isoformat(), counted(window)
            before = self._last.get(begun, self._tallies.total(opened))
            self._last[begun] = counts
            if more := grown(before, counts):
                change[begun] = more
        if change:
            self._tallies.add(now, change)
            self._unsaved[now] = change
        return self._tallies.evidence(windows, now)

    def unsaved(self) -> Mapping[datetime, Change]:
        return dict(self._unsaved)

    def saved(self) -> None:
        self._unsaved.clear()

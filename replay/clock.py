"""Simulated time: the moments of a replay, and a clock that only moves when it is moved."""

from datetime import datetime, timedelta
from typing import Literal

from core.errors import ReplayError

Step = Literal["month", "fortnight", "week"]
DAYS = {"fortnight": 14, "week": 7}


def moments(first: datetime, last: datetime, step: Step) -> tuple[datetime, ...]:
    """The moments from `first` to `last`, both included where they fall on a step. A month later is the same
    day of the next month. Raises ReplayError for fewer than two moments, or a month's day above 28."""
    if step == "month" and first.day > 28:
        raise ReplayError(f"--from {first:%Y-%m-%d}: not every month has this day; take one up to the 28th")
    found = []
    moment = first
    while moment <= last:
        found.append(moment)
        moment = _next(moment, step)
    if len(found) < 2:
        raise ReplayError(
            f"--from {first:%Y-%m-%d} --to {last:%Y-%m-%d}: less than one {step} apart; take a later end"
        )
    return tuple(found)


def _next(moment: datetime, step: Step) -> datetime:
    if step != "month":
        return moment + timedelta(days=DAYS[step])
    years, month = divmod(moment.month, 12)
    return moment.replace(year=moment.year + years, month=month + 1)


class SimulatedClock:
    """Aware UTC times. Sleeping moves the clock and takes no time."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        """The simulated time."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Moves the clock by so many seconds."""
        self._now += timedelta(seconds=seconds)

    def move_to(self, moment: datetime) -> None:
        """Moves the clock forward to a moment; a rollout may have taken it past it already."""
        self._now = max(self._now, moment)

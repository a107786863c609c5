"""The circuit breaker (Nygard, Release It!, 2007) as pure functions: when to stop reading a store that fails.

A closed breaker allows every read. It opens after some failures in a row, or when too many of the latest
reads failed. An open breaker refuses reads at once. After a wait it allows one read as a probe. If the probe
succeeds, the breaker closes, else it waits twice as long.
"""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Rule:
    failures_in_a_row: int = 3
    window: int = 20
    """Number of latest reads for the share of failures. With fewer reads, the share is not used."""
    failure_share: float = 0.5
    first_wait_s: float = 0.25
    longest_wait_s: float = 2.0
    """A store that works again is used after at most this time and one read."""

    def __post_init__(self) -> None:
        if self.failures_in_a_row < 1 or self.window < 1:
            raise ValueError("failures_in_a_row and window: at least 1")
        if not 0 < self.failure_share <= 1:
            raise ValueError("failure_share: above 0, at most 1")
        if not 0 < self.first_wait_s <= self.longest_wait_s:
            raise ValueError("first_wait_s: above 0, at most longest_wait_s")


@dataclass(frozen=True)
class State:
    latest: tuple[bool, ...] = ()
    """Whether the latest reads succeeded, the newest last."""
    opened_at: float | None = None
    wait_s: float = 0.0
    times_opened: int = 0


@dataclass(frozen=True)
class Decision:
    may_read: bool
    retry_after_s: float
    phase: Literal["closed", "half_open", "open"]


def decide(state: State, now: float) -> Decision:
    """Whether a read is allowed at `now` (seconds of any monotonic clock)."""
    if state.opened_at is None:
        return Decision(True, 0.0, "closed")
    left = state.opened_at + state.wait_s - now
    return Decision(False, left, "open") if left > 0 else Decision(True, 0.0, "half_open")


def after(state: State, succeeded: bool, now: float, rule: Rule) -> State:
    """The state after a read that `decide` allowed."""
    if state.opened_at is not None:
        if succeeded:
            return State(times_opened=state.times_opened)
        wait = min(2 * state.wait_s, rule.longest_wait_s)
        return replace(state, opened_at=now, wait_s=wait)
    latest = (*state.latest, succeeded)[-max(rule.window, rule.failures_in_a_row) :]
    in_a_row = not any(latest[-rule.failures_in_a_row :]) and len(latest) >= rule.failures_in_a_row
    window = latest[-rule.window :]
    too_many = len(window) == rule.window and window.count(False) >= rule.failure_share * rule.window
    if in_a_row or too_many:
        return State((), now, rule.first_wait_s, state.times_opened + 1)
    return replace(state, latest=latest)

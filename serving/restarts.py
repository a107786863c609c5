"""Decides when a process that ended is started again: first at once, then after longer and longer waits.

The functions read no clock. Times are seconds of a monotonic clock.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class RestartPolicy:
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    steady_s: float = 60.0
    """A process that ran this long has recovered: its next failure counts as the first."""

    def wait_after(self, failures: int) -> float:
        """Seconds until the next attempt after this many failures in a row: 0, then doubled each time."""
        if failures <= 1:
            return 0.0
        return min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(failures - 2, 60))


@dataclass(frozen=True)
class ProcessState:
    failures: int = 0
    """Consecutive failures: the process ended soon after its start, or did not start."""
    retry_at: float | None = None
    """Time of the next attempt; None while the process runs."""
    started_at: float = 0.0
    restarts: int = 0

    @property
    def down(self) -> bool:
        return self.retry_at is not None


def due(state: ProcessState, now: float) -> bool:
    """Whether a process that is down should be started now."""
    return state.retry_at is not None and now >= state.retry_at


def ended(state: ProcessState, now: float, policy: RestartPolicy) -> ProcessState:
    """The state after a running process has ended."""
    steady = now - state.started_at >= policy.steady_s
    failures = 1 if steady else state.failures + 1
    retry_at = now + policy.wait_after(failures)
    return replace(state, failures=failures, retry_at=retry_at, restarts=state.restarts + 1)


def not_started(state: ProcessState, now: float, policy: RestartPolicy) -> ProcessState:
    """The state after a failed attempt to start. The next attempt waits, even after the first failure,
    because its cause is probably still there.
    """
    failures = max(2, state.failures + 1)
    return replace(state, failures=failures, retry_at=now + policy.wait_after(failures))


def started(state: ProcessState, now: float) -> ProcessState:
    """The state of a process that runs. Its failures count until it has run for `steady_s`."""
    return replace(state, retry_at=None, started_at=now)

"""When a process that ended is started again: at once the first time, then after ever longer waits.

One policy a process, without a clock: times are seconds of any clock that only goes forward.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class RestartPolicy:
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    steady_s: float = 60.0
    """A process that ran this long has recovered: its next failure is a first one."""

    def wait_after(self, failures: int) -> float:
        """Seconds until the next attempt after this many failures in a row: 0, then doubled each time."""
        if failures <= 1:
            return 0.0
        return min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(failures - 2, 60))


@dataclass(frozen=True)
class ProcessState:
    failures: int = 0
    """In a row: ends soon after a start, and starts that did not succeed."""
    retry_at: float | None = None
    """None while the process runs."""
    started_at: float = 0.0
    restarts: int = 0

    @property
    def down(self) -> bool:
        return self.retry_at is not None


def due(state: ProcessState, now: float) -> bool:
    """Whether a process that is down may be started now."""
    return state.retry_at is not None and now >= state.retry_at


def ended(state: ProcessState, now: float, policy: RestartPolicy) -> ProcessState:
    """The process ran and was found to have ended."""
    steady = now - state.started_at >= policy.steady_s
    failures = 1 if steady else state.failures + 1
    retry_at = now + policy.wait_after(failures)
    return replace(state, failures=failures, retry_at=retry_at, restarts=state.restarts + 1)


def not_started(state: ProcessState, now: float, policy: RestartPolicy) -> ProcessState:
    """An attempt to start it failed. The first such failure waits too: what just failed fails again."""
    failures = max(2, state.failures + 1)
    return replace(state, failures=failures, retry_at=now + policy.wait_after(failures))


def started(state: ProcessState, now: float) -> ProcessState:
    """It runs. Its failures are forgotten only when it ends after a steady time."""
    return replace(state, retry_at=None, started_at=now)

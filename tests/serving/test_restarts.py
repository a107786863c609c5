"""When an ended process is started again: pure functions, with times as arguments."""

from serving.restarts import ProcessState, RestartPolicy, due, ended, not_started, started

POLICY = RestartPolicy(first_wait_s=0.5, longest_wait_s=30.0, steady_s=60.0)


def test_a_process_that_ran_well_is_started_again_at_once() -> None:
    state = ended(ProcessState(started_at=0.0), 100.0, POLICY)
    assert due(state, 100.0)
    assert not started(state, 101.0).down


def test_the_wait_doubles_when_a_process_ends_soon_after_each_start() -> None:
    """A successful start does not reset the failures; only a steady time does."""
    state, now, waits = ProcessState(started_at=0.0), 100.0, []
    for _ in range(10):
        state = ended(state, now, POLICY)
        assert state.retry_at is not None
        waits.append(state.retry_at - now)
        now = state.retry_at
        assert due(state, now) and not due(state, now - 0.01)
        state = started(state, now)
        now += 1.0
    assert waits == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert state.restarts == 10
    steady = ended(state, now + 61.0, POLICY)
    assert steady.retry_at == now + 61.0


def test_a_start_that_fails_waits_before_the_next() -> None:
    state = ended(ProcessState(started_at=0.0), 100.0, POLICY)
    state = not_started(state, 101.0, POLICY)
    assert state.retry_at == 101.5
    state = not_started(state, 102.0, POLICY)
    assert state.retry_at == 103.0
    assert state.restarts == 1, "attempts are no restarts"


def test_after_many_failures_the_wait_is_the_longest() -> None:
    assert RestartPolicy().wait_after(10_000) == 30.0

"""When a process that ended is started again: pure decisions on a made-up clock."""

from serving.restarts import ProcessState, RestartPolicy, due, ended, not_started, started

POLICY = RestartPolicy(first_wait_s=0.5, longest_wait_s=30.0, steady_s=60.0)


def test_a_process_that_ran_well_is_started_again_at_once() -> None:
    state = ended(ProcessState(started_at=0.0), 100.0, POLICY)
    assert due(state, 100.0)
    assert not started(state, 101.0).down


def test_one_that_ends_soon_after_each_start_waits_twice_as_long_each_time() -> None:
    """A start that succeeds is no proof that it runs: only a steady time is."""
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


def test_a_long_row_of_failures_stays_at_the_longest_wait() -> None:
    assert RestartPolicy().wait_after(10_000) == 30.0

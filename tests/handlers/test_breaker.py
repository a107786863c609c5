"""When the circuit breaker opens, how long it remains open, and that it always allows another read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.store.breaker import Decision, Rule, State, after, decide

RULE = Rule(failures_in_a_row=3, window=10, failure_share=0.5, first_wait_s=0.25, longest_wait_s=2.0)


def state_after(outcomes: str, state: State | None = None, now: float = 0.0) -> State:
    """The state after reads that succeeded (+) or failed (-)."""
    state = state or State()
    for outcome in outcomes:
        state = after(state, outcome == "+", now, RULE)
    return state


@pytest.mark.parametrize(
    ("outcomes", "phase"),
    [
        ("", "closed"),
        ("--", "closed"),
        ("---", "open"),
        ("--+--", "closed"),
        ("++++---", "open"),
        ("+-+-+-+-+", "closed"),  # nine reads are fewer than the window
        ("+-+-+-+-+-", "open"),
        ("++-+--++-+", "closed"),
    ],
)
def test_it_opens_after_failures_in_a_row_or_too_large_a_share(outcomes: str, phase: str) -> None:
    assert decide(state_after(outcomes), 0.0).phase == phase


def test_an_open_breaker_returns_the_wait_and_then_allows_one_probe() -> None:
    state = state_after("---", now=100.0)
    assert decide(state, 100.1) == Decision(False, pytest.approx(0.15), "open")
    assert decide(state, 100.25) == Decision(True, 0.0, "half_open")
    assert decide(after(state, True, 100.3, RULE), 100.3).phase == "closed"


def test_each_failed_probe_doubles_the_wait_up_to_the_longest() -> None:
    state, now, waits = state_after("---"), 0.0, []
    for _ in range(6):
        waits.append(state.wait_s)
        now += state.wait_s
        state = after(state, False, now, RULE)
    assert waits == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]


def test_a_closed_breaker_ignores_earlier_failures() -> None:
    closed = after(state_after("---"), True, 1.0, RULE)
    assert decide(state_after("--", closed), 1.0).phase == "closed"
    assert state_after("---", closed).wait_s == RULE.first_wait_s
    assert state_after("---", closed).times_opened == 2


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=200))
def test_a_read_is_allowed_again_within_the_longest_wait(history: list[tuple[bool, float]]) -> None:
    state, now = State(), 0.0
    for succeeded, pause in history:
        now += pause
        decision = decide(state, now)
        assert 0 <= decision.retry_after_s <= RULE.longest_wait_s
        assert decision.may_read == (decision.retry_after_s == 0)
        if decision.may_read:
            state = after(state, succeeded, now, RULE)
    assert decide(state, now + RULE.longest_wait_s).may_read


@pytest.mark.parametrize(
    "wrong",
    [
        {"failures_in_a_row": 0},
        {"window": 0},
        {"failure_share": 0.0},
        {"first_wait_s": 3.0},
        {"first_wait_s": 0.0},
    ],
)
def test_an_invalid_rule_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Rule(**wrong)  # type: ignore[arg-type]

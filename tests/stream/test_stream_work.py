"""Messages become vectors that equal the batch build, whatever is repeated, late, or broken off."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.records.erasure import Erased
from stream.errors import StoreAway
from stream.state import State
from support.stream_workspace import END, Row, Shop, differences, message, purchases, shop, vectors


class Clock:
    """A clock that advances by a second at each reading."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def state(made: Shop, tmp_path: Path) -> Iterator[State]:
    state = made.state(f"sqlite:///{tmp_path}/state.db")
    yield state
    state.close()


def streamed(count: int = 120, seed: int = 1, customers: int = 25) -> list[Row]:
    """Purchases of a week after the records; customers from 20 on are new."""
    rng = np.random.default_rng(seed)
    return purchases(rng, customers, count, END, END + timedelta(days=7), "s")


def customers_of(state: State) -> list[str]:
    return [user for page in state.customers(100) for user in page]


def test_the_records_are_loaded_once(made: Shop, state: State) -> None:
    assert len(customers_of(state)) == 20
    again = made.state(state._uri)
    try:
        assert len(customers_of(again)) == 20
        vectors_, _ = again.touch(customers_of(again), 0, lambda held: held.rows.num_rows)
        assert vectors_ == len(made.history)
    finally:
        again.close()


def test_repeated_late_and_shuffled_purchases_equal_the_batch_build(
    made: Shop, state: State, tmp_path: Path
) -> None:
    rows = streamed()
    late = purchases(np.random.default_rng(5), 20, 20, END - timedelta(days=60), END, "late")
    every = [*rows, *late]
    messages = [message(row) for row in [*every, *every[::3], *made.history[:10]]]  # the records' too
    random.Random(3).shuffle(messages)
    work = made.work(state, Clock(END + timedelta(days=8)))
    outcomes = [work.apply(messages[at : at + 17]) for at in range(0, len(messages), 17)]
    assert sum(one.new for one in outcomes) == len(every)
    assert sum(one.repeated for one in outcomes) == len(messages) - len(every)
    assert not any(one.refused for one in outcomes)
    found = vectors(made, customers_of(state))
    assert found.num_rows == 25
    assert differences(made, every, found, tmp_path) == []


def test_a_vector_changes_with_each_purchase_although_no_time_passes(made: Shop, state: State) -> None:
    frozen = END + timedelta(days=30)
    pushed: list[pa.Table] = []
    work = made.work(state, lambda: frozen, pushed.append)
    for row in [(3, END.isoformat(), 1.0, 1.0, "a"), (3, END.isoformat(), 2.0, 1.0, "b")]:
        work.apply([message(row)])
    times = [table["event_timestamp"][0].as_py() for table in pushed]
    assert times == [frozen, frozen + timedelta(microseconds=1)]
    totals = [table["total_purchases"][0].as_py() for table in pushed]
    assert totals[1] == totals[0] + 1


@pytest.mark.parametrize("fails", ["before the push", "after the push"])
def test_work_that_is_broken_off_is_repeated_and_counts_once(
    made: Shop, state: State, fails: str, tmp_path: Path
) -> None:
    """As after kill -9: the batch is delivered again; if the broker lost it, the state pushes by itself."""
    pushed: list[pa.Table] = []

    def push(table: pa.Table) -> None:
        if fails == "after the push":
            pushed.append(table)
        raise StoreAway("killed")

    rows = streamed(10, seed=9)
    clock = Clock(END + timedelta(days=8))
    with pytest.raises(StoreAway):
        made.work(state, clock, push).apply([message(row) for row in rows])
    again = made.work(state, clock, pushed.append)
    assert again.recover() == len({row[0] for row in rows})
    assert again.recover() == 0
    outcome = again.apply([message(row) for row in rows])
    assert (outcome.new, outcome.repeated) == (0, 10)
    first, second = pushed[-2], pushed[-1]
    assert first["total_purchases"].to_pylist() == second["total_purchases"].to_pylist()
    assert differences(made, rows, second, tmp_path) == []


def test_messages_that_are_no_purchase_are_refused_with_a_reason(made: Shop, state: State) -> None:
    work = made.work(state, lambda: END + timedelta(days=1))
    good = (1, END.isoformat(), 5.0, 1.0, "good")
    cases: dict[bytes | None, str] = {
        None: "empty",
        b"\xff": "not JSON",
        b"[1]": "not a JSON object",
        b"x" * 200_000: "more than 100000 bytes",
        b"[" * 50_000: "not JSON",
        message(good, buyer=None): "user_id is missing",
        message(good, buyer={"a": 1}): "buyer is not a text, a number or null",
        message(good, buyer="a\x00b"): "characters that no database stores",
        message(good, buyer="\ud800"): "characters that no database stores",
        message(good, when="yesterday"): "timestamp is not",
        message(good, paid="much"): "amount is not a number",
        message(good, paid=float("nan")): "amount is",
        message(good, receipt=None): "transaction_id is missing",
        message(good, when=(END + timedelta(days=1, seconds=61)).isoformat()): "in the future",
    }
    outcome = work.apply([*cases, message(good)])
    assert outcome.new == 1
    for place, reason in enumerate(cases.values()):
        assert reason in outcome.refused[place], (place, outcome.refused[place])


def test_a_repetition_with_other_values_is_refused_and_the_first_counts(made: Shop, state: State) -> None:
    work = made.work(state, lambda: END + timedelta(days=1))
    row = (1, END.isoformat(), 5.0, 1.0, "once")
    outcome = work.apply([message(row), message(row, paid=6.0), message(row)])
    assert (outcome.new, outcome.repeated) == (1, 1)
    assert list(outcome.refused) == [1]
    assert list(work.apply([message(row, paid=7.0)]).refused) == [0]


def test_a_purchase_for_which_features_fail_is_refused_and_the_others_count(
    tmp_path: Path, made: Shop, state: State
) -> None:
    def compute(held: Any) -> pa.Table:
        from core.errors import FeatureError

        if any(amount == 13.0 for amount in held.rows["amount"].to_pylist()):
            raise FeatureError("feature risky: cannot be computed")
        return held.rows.select(["user_id"]).slice(0, 1)

    work = made.work(state, lambda: END + timedelta(days=1), lambda table: None)
    work._compute = compute
    rows = [(at, END.isoformat(), paid, 1.0, f"p{at}") for at, paid in enumerate([1.0, 13.0, 2.0])]
    outcome = work.apply([message(row) for row in rows])
    assert outcome.new == 2
    assert "feature risky" in outcome.refused[1]
    assert work.apply([message((1, END.isoformat(), 3.0, 1.0, "later"))]).new == 1


def test_a_later_vector_of_another_consumer_is_pushed_again(made: Shop, state: State) -> None:
    """Two consumers compute for one customer; the store got the earlier vector last."""
    pushed: list[pa.Table] = []
    now = END + timedelta(days=1)
    other = made.work(state, lambda: now + timedelta(seconds=5), pushed.append)

    def push(table: pa.Table) -> None:
        if not pushed:  # the other consumer is faster, once
            other.apply([message((2, END.isoformat(), 9.0, 1.0, "other"))])
        pushed.append(table)

    made.work(state, lambda: now, push).apply([message((2, END.isoformat(), 8.0, 1.0, "mine"))])
    totals = [table["total_purchases"][0].as_py() for table in pushed]
    assert len(totals) == 3
    assert totals[2] == max(totals)
    times = [table["event_timestamp"][0].as_py() for table in pushed]
    assert times[2] == max(times)


def test_erased_customers_do_not_return(made: Shop, state: State) -> None:
    reader = made.reader()
    row = (4, END.isoformat(), 5.0, 1.0, "x")
    now = int((END + timedelta(days=1)).timestamp() * 1e6)
    user = reader.read([message(row)], now, 0).purchases[0].user_id
    assert state.erase([user]) == sum(one[0] == 4 for one in made.history)
    erased = Erased(made.files.erased, made.key)
    try:
        erased.add([user])
        assert made.work(state, lambda: END + timedelta(days=1)).apply([message(row)]).left_out == 1
        assert user not in customers_of(state)
    finally:
        made.files.erased.unlink()

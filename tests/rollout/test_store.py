"""The database of rollouts: with real processes that race, on SQLite and on PostgreSQL."""

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from rollout.errors import LeaseHeld, Overtaken, RolloutError
from rollout.observers.observer import Opened
from rollout.rules.rule import Verdict
from rollout.state import Change, Event, Rollout
from rollout.store import Store
from support.file_target import NEW, OLD, plan

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PROCESSES = multiprocessing.get_context("fork")
RACERS = 6


def start(store: Store, model: str = "churn") -> Rollout:
    return store.start(model, Change(NEW, OLD, "ada", NOW, "march"), plan())


def race(act: Callable[..., None], *arguments: Any) -> list[str]:
    """The messages of several processes that begin at the same moment: each calls `act(report,
    *arguments)`."""
    reports, go = PROCESSES.Queue(), PROCESSES.Event()

    def runner() -> None:
        go.wait(30)
        try:
            act(reports.put, *arguments)
        except Exception as error:
            reports.put(f"{type(error).__name__}: {error}")

    racers = [PROCESSES.Process(target=runner) for _ in range(RACERS)]
    for racer in racers:
        racer.start()
    go.set()
    answers = [reports.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join(30)
    return answers


def open_it(report: Callable[[str], None], uri: str) -> None:
    report(str(Store(uri).newest("churn")))


def start_one(report: Callable[[str], None], uri: str) -> None:
    store = Store(uri)
    try:
        start(store)
    except RolloutError as error:
        report(f"refused: {error}")
    else:
        report("started")


def take(report: Callable[[str], None], uri: str, now: datetime) -> None:
    try:
        Store(uri).take_lease("churn", f"holder {os.getpid()}", now)
    except LeaseHeld:
        report("refused")
    else:
        report("taken")


def test_processes_that_open_a_new_database_together_all_succeed(uri: str) -> None:
    assert race(open_it, uri) == ["None"] * RACERS


def test_only_one_of_many_starts_a_rollout(uri: str) -> None:
    Store(uri)
    reports = race(start_one, uri)
    assert reports.count("started") == 1, reports
    assert all("is running; wait for its end" in one for one in reports if one != "started"), reports


def test_only_one_of_many_gets_a_free_lease(uri: str) -> None:
    Store(uri)
    assert race(take, uri, NOW).count("taken") == 1


def test_only_one_of_many_takes_an_expired_lease_over(uri: str) -> None:
    Store(uri, lease_s=10).take_lease("churn", "dead", NOW)
    assert race(take, uri, NOW + timedelta(seconds=9)).count("taken") == 0
    assert race(take, uri, NOW + timedelta(seconds=10)).count("taken") == 1


def test_a_rollout_comes_back_as_it_was_saved(uri: str) -> None:
    store = Store(uri)
    windows = (
        Opened(0, True, NOW, NOW + timedelta(seconds=5), {"a": 1.0}, {"a": 2.5}),
        Opened(5, False, NOW + timedelta(seconds=5), before={"a": 2.5}),
    )
    begun = start(store)
    changed = replace(
        begun,
        phase="stage",
        stage=1,
        windows=windows,
        unreached_since=NOW + timedelta(microseconds=1),
        pending=2,
        unready_since=NOW,
        trouble="no route",
        stuck=True,
    )
    verdicts = (Verdict("error_rate", "advance", "fine", {"e": 0.25}),)
    event = Event(
        NOW, "advance", "on", {"x": 1.0, "nan": float("nan")}, verdicts, 5, phase="stage", done=False
    )
    saved = store.save(changed, event)
    assert store.load(begun.id) == saved == store.current("churn") == store.newest("churn")
    first, second = store.history(begun.id)
    assert first.action == "start" and first.done
    assert second == replace(event, sequence=2, numbers={"x": 1.0})

    confirmed = store.confirm(saved, NOW + timedelta(seconds=6))
    assert confirmed.pending == 0 and not confirmed.trouble and store.history(begun.id)[1].done


def test_state_and_history_change_together_or_not_at_all(uri: str) -> None:
    store = Store(uri)
    begun = start(store)
    store.save(begun, Event(NOW, "pause", "first"))
    with pytest.raises(Overtaken):
        store.save(replace(begun, paused=True), Event(NOW, "pause", "late"))
    assert [event.reason for event in store.history(begun.id)] == ["march", "first"]
    assert not store.load(begun.id).paused


def test_only_the_holder_of_the_lease_can_write(uri: str) -> None:
    store = Store(uri, lease_s=10)
    begun = start(store)
    store.take_lease("churn", "one", NOW)
    store.save_observation(begun, {"seen": 1}, {NOW: {"w": {"x": 1.0}}}, holder="one")
    store.take_lease("churn", "two", NOW + timedelta(seconds=10))
    with pytest.raises(Overtaken):
        store.save(begun, Event(NOW, "advance", "late"), holder="one")
    with pytest.raises(Overtaken):
        store.save_observation(begun, {"seen": 2}, {}, holder="one")
    assert store.observation(begun.id) == {"seen": 1}
    holder = store.controller("churn", NOW + timedelta(seconds=19))
    assert holder is not None and holder.holder == "two"
    assert store.controller("churn", NOW + timedelta(seconds=20)) is None


def test_a_lease_that_is_given_back_is_free_at_once(uri: str) -> None:
    store = Store(uri)
    store.take_lease("churn", "one", NOW)
    store.release_lease("churn", "two", NOW)  # not its own
    with pytest.raises(LeaseHeld):
        store.take_lease("churn", "two", NOW)
    store.release_lease("churn", "one", NOW)
    store.take_lease("churn", "two", NOW)


def test_the_database_itself_refuses_to_change_history(uri: str) -> None:
    store = Store(uri)
    start(store)
    engine = sqlalchemy.create_engine(uri)
    for statement in ("UPDATE events SET reason = 'better'", "DELETE FROM events"):
        with (
            pytest.raises(sqlalchemy.exc.SQLAlchemyError, match="appended only"),
            engine.begin() as connection,
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()


def test_each_model_has_its_own_rollout_and_a_second_comes_after_the_first(uri: str) -> None:
    store = Store(uri)
    first = start(store)
    other = start(store, "upsell")
    with pytest.raises(RolloutError, match=f"churn: rollout {first.id} is running"):
        start(store)
    store.save(replace(first, phase="rolled_back", ended=NOW), Event(NOW, "end", "bad"))
    second = start(store)
    assert {r.id for r in store.all("churn")} == {first.id, second.id}
    assert store.current("upsell") == other


def test_what_is_stable_follows_from_the_rollouts(uri: str) -> None:
    store = Store(uri)
    assert store.stable("churn") is None
    begun = start(store)
    assert store.stable("churn") == OLD  # while it is on trial
    promoted = store.save(replace(begun, phase="promoted", ended=NOW), Event(NOW, "finish", "good"))
    assert store.stable("churn") == NEW
    store.reopen(promoted, "bob", "offers fail", NOW)
    request = store.next_request(begun.id)
    assert request is not None and (request.what, request.why) == ("abort", "bob: offers fail")
    back = store.load(begun.id)
    store.save(
        replace(back, phase="rolled_back", ended=NOW), Event(NOW, "end", "offers fail"), answers=request
    )
    assert store.stable("churn") == OLD and store.next_request(begun.id) is None
    assert store.answer(request) == 4


def test_requests_wait_in_the_order_in_which_they_were_made(uri: str) -> None:
    store = Store(uri)
    id = start(store).id
    store.request(id, "pause", "bob", "lunch", NOW)
    store.request(id, "resume", "bob", "", NOW)
    first = store.next_request(id)
    assert first is not None and first.what == "pause"
    store.save(store.load(id), Event(NOW, "pause", "x"), answers=first)
    second = store.next_request(id)
    assert second is not None and second.what == "resume" and second.why == "requested by bob"


def test_a_database_that_is_not_there_is_one_line_without_the_password() -> None:
    began = time.monotonic()
    with pytest.raises(RolloutError) as refused:
        Store("postgresql+psycopg://churn:s3cret@127.0.0.1:1/rollouts")
    assert "s3cret" not in str(refused.value) and "rollouts at postgresql" in str(refused.value)
    assert "\n" not in str(refused.value) and time.monotonic() - began < 30
    with pytest.raises(RolloutError):
        Store("no-such-database://x")


def test_the_tables_are_those_of_the_newest_migration(uri: str) -> None:
    """alembic itself finds nothing to add."""
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from rollout.database import tables

    Store(uri)
    config = Config()
    config.set_main_option("script_location", str(Path(tables.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [tables.NEWEST]
    engine = sqlalchemy.create_engine(uri)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": tables.VERSION_TABLE})
        assert compare_metadata(context, tables.TABLES) == []
    engine.dispose()

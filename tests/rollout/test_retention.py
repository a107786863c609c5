"""Counts of old rollouts go, decisions stay, and a database of an older release is brought up to date."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config

from rollout.database import tables
from rollout.database.connection import locked
from rollout.retention import Retention
from rollout.state import Change, Event, Rollout
from rollout.store import Store
from support.file_target import NEW, OLD, plan

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def observed(store: Store, model: str, ended: datetime | None) -> Rollout:
    """A rollout with three looks, that ended then or still runs."""
    rollout = store.start(model, Change(NEW, OLD, "ada", NOW - timedelta(days=200), "march"), plan())
    looks = {NOW - timedelta(days=200, seconds=-n): {"requests": n} for n in range(3)}
    store.save_observation(rollout, {"at": "then"}, looks)
    if ended is None:
        return rollout
    over = replace(rollout, phase="promoted", promoted=True, ended=ended, outcome="done")
    return store.save(over, Event(ended, "finish", "done", phase="promoted"))


def test_counts_go_when_their_time_is_over_and_decisions_stay(uri: str) -> None:
    store = Store(uri)
    old = observed(store, "old", NOW - timedelta(days=91))
    recent = observed(store, "recent", NOW - timedelta(days=89))
    running = observed(store, "running", None)
    history = store.history(old.id)
    Retention(store, 90, lambda: NOW)()
    assert [len(store.observations(r.id)) for r in (old, recent, running)] == [0, 3, 3]
    assert store.history(old.id) == history
    assert store.load(old.id) == old


def test_what_is_due_is_looked_for_once_an_hour(uri: str) -> None:
    store, now = Store(uri), NOW
    retention = Retention(store, 90, lambda: now)
    retention()
    old = observed(store, "old", NOW - timedelta(days=91))
    retention()
    assert len(store.observations(old.id)) == 3
    now += timedelta(hours=1)
    retention()
    assert store.observations(old.id) == []


def test_a_database_of_the_first_release_is_brought_up_to_date(uri: str) -> None:
    """Migrations 0002 and 0003, with a rollout that was begun before them."""
    config = Config()
    config.set_main_option("script_location", str(Path(tables.__file__).parent / "migrations"))
    local = uri.startswith("sqlite")
    if local:
        Path(uri.removeprefix("sqlite:///")).parent.mkdir()
    with locked(uri, local) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO rollouts (id, model, active, candidate, phase, stage, paused, windows, started,"
                " by, reason, plan, since, sequence, pending, deployed, unready, promoted, controller,"
                " outcome)"
                " VALUES ('r1', 'churn', 'churn', :candidate, 'stage', 1, :no, '[]', :at, 'ada',"
                " 'march', '{}', :at, 1, 0, :no, 2, :no, '', '')"
            ),
            {
                "candidate": json.dumps(
                    {"archive": NEW.archive, "sha256": NEW.sha256, "version": NEW.version}
                ),
                "no": False,
                "at": "2026-03-01 12:00:00.000000" if local else NOW,
            },
        )
    store = Store(uri)
    rollout = store.current("churn")
    assert rollout is not None
    assert (rollout.id, rollout.stage, rollout.unready_since, rollout.trouble, rollout.stuck) == (
        "r1", 1, None, "", False,
    )  # fmt: skip
    store.save_observation(rollout, {}, {NOW: {"requests": 1}})
    assert store.observations("r1") == [(NOW, {"requests": 1})]
    assert store.projections("churn") == []
    engine = sqlalchemy.create_engine(uri)
    names = {column["name"] for column in sqlalchemy.inspect(engine).get_columns("rollouts")}
    engine.dispose()
    assert "unready" not in names

"""Registry and target beside what the database records as stable: mended, or reported with the remedies."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rollout.database.projections import Projection
from rollout.reconcile import Reconciler
from rollout.state import Change
from rollout.targets.target import Candidate
from support.file_target import NEW, OLD, FileRegistry, FileTarget, memory_folder, plan, store_in


class Idle:
    """A controller while no rollout runs."""

    def __init__(self, folder: Path) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)
        self.store, self.target = store_in(folder, plan()), FileTarget(folder)
        self.registry = FileRegistry(folder)
        self.compare = Reconciler(self.store, self.target, self.registry, "churn", lambda: self.now)

    def passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += timedelta(seconds=1)
            self.compare()

    def record(self, stable: Candidate) -> None:
        before = self.store.stable("churn")
        self.store.served_at_once("churn", Change(stable, before, "ada", self.now, "by hand"))

    def shown(self) -> dict[str, Projection]:
        return {found.name: found for found in self.store.projections("churn")}


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Idle]:
    with memory_folder(tmp_path) as folder:
        yield Idle(folder)


def test_before_anything_was_served_there_is_nothing_to_compare(idle: Idle) -> None:
    idle.passes(3)
    assert idle.shown() == {} and idle.registry.champions() == []


def test_a_registry_that_names_another_champion_is_mended_and_one_that_is_away_later(idle: Idle) -> None:
    idle.record(OLD)
    idle.passes(1)
    assert idle.shown()["registry"].agrees
    idle.registry._file.write_text(NEW.sha256 + "\n")  # by hand, or by a rehearsal of another machine
    idle.registry.unreachable.touch()
    idle.passes(16)
    assert not idle.shown()["registry"].agrees
    idle.registry.unreachable.unlink()
    idle.passes(16)
    assert idle.shown()["registry"].agrees and idle.registry.champions() == ["new", "old"]


def test_a_target_that_serves_something_else_is_reported_once_and_left_to_a_person(
    idle: Idle, caplog: pytest.LogCaptureFixture
) -> None:
    idle.record(OLD)
    idle.passes(1)
    assert idle.shown()["target"].agrees
    idle.target.promote(NEW)
    with caplog.at_level(logging.WARNING, "churn.rollout"):
        idle.passes(30)
    found = idle.shown()["target"]
    assert not found.agrees and f"serves {NEW.sha256[:12]}" in found.detail
    assert "churn rollout restore" in found.detail and "churn rollout adopt" in found.detail
    assert idle.target.observe().stable == NEW.sha256
    warned = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert len(warned) == 1
    idle.target.promote(OLD)
    idle.passes(1)
    assert idle.shown()["target"].agrees


def test_a_change_that_is_just_being_recorded_is_no_difference(idle: Idle) -> None:
    idle.record(OLD)
    idle.passes(1)
    idle.target.promote(NEW)
    idle.passes(3)
    idle.record(NEW)
    idle.passes(10)
    assert idle.shown()["target"].agrees
    assert idle.registry.champions() == ["new"]


def test_a_canary_of_no_rollout_and_an_unreachable_target_are_reported(idle: Idle) -> None:
    idle.record(OLD)
    idle.target.deploy(NEW)
    idle.target.set_weight(5)
    idle.passes(7)
    assert "gives 5 % to a canary" in idle.shown()["target"].detail
    idle.target.unreachable.touch()
    idle.passes(7)
    assert "cannot be reached" in idle.shown()["target"].detail

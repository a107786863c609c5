"""kill -9 of the controller at each of its fault points: the next one ends the rollout in the right state.

The controller is a process of its own, the traffic a file that outlives it.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rollout.controller import FAULT_POINTS
from rollout.state import Change, Rollout
from support.file_target import (
    NEW,
    OLD,
    FileRegistry,
    FileTarget,
    controller,
    memory_folder,
    now,
    plan,
    store_in,
)

ENDS = {
    "good": ("promoted", 100, [["new"]]),
    "bad": ("rolled_back", 50, [[]]),
    # a controller that died while it promoted is followed by one that judges before it continues
    "late": ("rolled_back", 100, [["new", "old"], []]),
}
"""What the canary is like -> the end, the most of the customers that it may have, the champions."""
ERRORS = {"good": "{}", "bad": '{"50": 4}', "late": '{"watch": 4}'}
BACK = {"back_acted", "back_recorded", "back_registered"}
ONCE = {"deploy_confirmed", "promote_confirmed", "back_recorded", "ended"}
"""What is passed once in a rollout, however often its controllers die."""
JUDGED_FIRST = ("late", "promote_intended")
"""The controller that follows judges the late canary before it promotes, and so never comes to this point."""
CASES = [
    *(("good", point) for point in FAULT_POINTS if point not in BACK),
    *(("bad", point) for point in FAULT_POINTS if point in BACK or point == "ended"),
    *(("late", point) for point in FAULT_POINTS if point in BACK or point.startswith("promote")),
]


PROCESSES = multiprocessing.get_context("fork")
"""Processes that start at once: a hundred of them are killed here."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as made:
        yield made


def control(folder: Path, id: str, dies_at: str | None, times_before: int) -> None:
    """Run a controller that kills itself at `point`, without any cleaning up."""
    left = times_before

    def faults(point: str) -> None:
        nonlocal left
        if point == dies_at:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    config = plan()
    controller(folder, config, faults=faults).run(id)


class Ordeal:
    """One rollout through processes that are killed, one after the other, and one that is not."""

    def __init__(self, folder: Path, canary: str) -> None:
        self.folder, self.canary = folder, canary
        (folder / "errors.json").write_text(ERRORS[canary])
        self.store = store_in(folder, plan())
        self.id = self.store.start("churn", Change(NEW, OLD, "ada", now(), "march"), plan()).id
        self.killed = 0

    def through(self, deaths: Sequence[tuple[str, int]]) -> Rollout:
        for point, before in [*deaths, (None, 0)]:
            process = PROCESSES.Process(target=control, args=(self.folder, self.id, point, before))
            process.start()
            process.join(60)
            if process.is_alive():
                process.kill()
                process.join()
                pytest.fail(f"a controller did not end within 60 s after {point}")
            assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
            self.killed += process.exitcode == -signal.SIGKILL
        return self.store.load(self.id)

    def check(self) -> None:
        """The right end, never more customers than were decided, and a complete history."""
        phase, most, champions = ENDS[self.canary]
        rollout, history = self.store.load(self.id), self.store.history(self.id)
        target = FileTarget(self.folder)
        traffic = target.observe()
        assert rollout.phase == phase, rollout
        assert traffic.stable == (NEW if phase == "promoted" else OLD).sha256
        assert (traffic.weight, traffic.canary) == (0, None)
        assert FileRegistry(self.folder).champions() in champions

        shares = [100 if c["stable"] == NEW.sha256 else c["weight"] for c in target.changes()]
        assert max(shares) == most
        for share, change in zip(shares, target.changes(), strict=True):
            if change["decided"]["action"] not in ("roll_back", "fall_back"):
                assert share <= change["decided"]["weight"], change

        assert [event.sequence for event in history] == list(range(1, len(history) + 1))
        assert without_repeats([0, *shares]) == without_repeats([event.weight for event in history])
        assert all(event.reason for event in history)
        assert rollout.pending == 0


def without_repeats(values: Sequence[int]) -> list[int]:
    return [value for number, value in enumerate(values) if number == 0 or values[number - 1] != value]


@pytest.mark.parametrize(("canary", "point"), CASES)
def test_killed_there_the_next_one_continues(folder: Path, canary: str, point: str) -> None:
    ordeal = Ordeal(folder, canary)
    ordeal.through([(point, 0)])
    assert ordeal.killed == 1
    ordeal.check()


@pytest.mark.slow
@pytest.mark.parametrize(("canary", "point"), [case for case in CASES if case[1] not in ONCE])
def test_killed_there_twice_the_third_one_continues(folder: Path, canary: str, point: str) -> None:
    ordeal = Ordeal(folder, canary)
    ordeal.through([(point, 0), (point, 0)])
    assert ordeal.killed == (1 if (canary, point) == JUDGED_FIRST else 2)
    ordeal.check()


@pytest.mark.parametrize("point", ["weight_intended", "weight_acted", "weight_confirmed"])
@pytest.mark.parametrize("before", [1, 2, 3])
def test_killed_at_a_later_stage(folder: Path, point: str, before: int) -> None:
    ordeal = Ordeal(folder, "good")
    ordeal.through([(point, before)])
    assert ordeal.killed == 1
    ordeal.check()


@pytest.mark.parametrize("canary", list(ENDS))
def test_killed_at_every_point_in_turn(folder: Path, canary: str) -> None:
    ordeal = Ordeal(folder, canary)
    ordeal.through([(point, 0) for point in FAULT_POINTS])
    assert ordeal.killed >= 6
    ordeal.check()


def test_the_next_one_records_which_one_it_replaced(folder: Path) -> None:
    ordeal = Ordeal(folder, "good")
    ordeal.through([("weight_acted", 1)])
    (taken,) = [event for event in ordeal.store.history(ordeal.id) if event.action == "take_over"]
    assert "is gone" in taken.reason


def test_every_point_is_passed_by_some_rollout(folder: Path) -> None:
    """Else a point could be renamed and no test would kill a controller there any more."""
    seen: list[str] = []
    for canary in ENDS:
        here = folder / canary
        here.mkdir()
        (here / "errors.json").write_text(ERRORS[canary])
        store = store_in(here, plan())
        id = store.start("churn", Change(NEW, OLD, "ada", now(), "march"), plan()).id
        controller(here, plan(), store=store, faults=seen.append).run(id)
    assert set(seen) == set(FAULT_POINTS)

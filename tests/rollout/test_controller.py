"""The loop with a target, an observer and a registry that are files, on a clock that the test moves."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.errors import ServingError
from rollout.again import judge_again
from rollout.controller import Controller
from rollout.errors import LeaseHeld, RolloutError
from rollout.notify import Notice
from rollout.state import Change, Event, RequestKind, Rollout
from rollout.targets.target import Candidate
from support.file_target import (
    NEW,
    OLD,
    AnyError,
    FileObserver,
    FileRegistry,
    FileTarget,
    controller,
    memory_folder,
    now,
    plan,
    store_in,
)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Trial:
    """One rollout of the candidate, whose time passes only when something sleeps."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.clock = folder, Clock()
        self.config = plan(tick_s=1, lease_s=30, watch_s=10, **settings)
        self.store = store_in(folder, self.config)
        self.target, self.observer = FileTarget(folder, self.store), FileObserver(folder)
        self.registry = FileRegistry(folder)
        self.notices: list[Notice] = []
        self.id = self.store.start("churn", Change(NEW, OLD, "ada", self.clock.now, "march"), self.config).id
        self.controller = self.another()

    def another(self, **more: Any) -> Controller:
        plain: dict[str, Any] = {
            "store": self.store,
            "target": self.target,
            "clock": self.clock,
            "sleep": self.clock.sleep,
            "notify": self.notices.append,
        }
        return controller(self.folder, self.config, **(plain | more))

    def until(self, phase: str, stage: int | None = None) -> Rollout:
        for _ in range(200):
            rollout = self.controller.tick(self.id)
            if rollout.phase == phase and (stage is None or rollout.stage == stage) and not rollout.pending:
                return rollout
            self.clock.sleep(1)
        raise AssertionError(f"never {phase}: {rollout}")

    def until_pending(self, phase: str) -> Rollout | None:
        for _ in range(50):
            rollout = self.ticks(1)
            if rollout.phase == phase and rollout.pending:
                return rollout
        return None

    def ticks(self, count: int) -> Rollout:
        for _ in range(count):
            self.clock.sleep(1)
            rollout = self.controller.tick(self.id)
        return rollout

    def ask(self, what: RequestKind, reason: str = "because") -> None:
        self.store.request(self.id, what, "bob", reason, self.clock.now)

    def history(self) -> list[Event]:
        return self.store.history(self.id)

    def actions(self) -> list[str]:
        return [event.action for event in self.history()]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as made:
        yield made


@pytest.fixture
def trial(folder: Path) -> Trial:
    return Trial(folder)


def test_a_good_candidate_reaches_all_customers_stage_by_stage(trial: Trial) -> None:
    done = trial.controller.run(trial.id)
    assert done.phase == "promoted" and done.ended is not None
    assert trial.actions() == [
        "start", "deploy", "advance", "advance", "advance", "advance", "promote", "watch", "finish",
    ]  # fmt: skip
    assert [e.weight for e in trial.history() if e.action == "advance"] == [0, 5, 50, 100]
    assert all(event.done and event.reason for event in trial.history())
    assert trial.target.observe().stable == NEW.sha256
    assert trial.registry.champions() == ["new"]
    assert [window.weight for window in done.windows] == [0, 5, 50, 100, 100]
    assert all(window.ended for window in done.windows)


def test_every_decision_holds_the_verdicts_and_numbers_it_was_taken_on(trial: Trial) -> None:
    trial.controller.run(trial.id)
    passed = [event for event in trial.history() if event.action in ("advance", "promote")][1:]
    assert all(event.verdicts[0].rule == "any_error" for event in passed)
    assert all(event.numbers["canary_requests"] == 100 for event in passed)


def test_a_bad_candidate_is_taken_back_with_the_reason_and_the_champion_stays(
    trial: Trial, folder: Path
) -> None:
    (folder / "errors.json").write_text('{"5": 3}')
    done = trial.controller.run(trial.id)
    assert done.phase == "rolled_back" and done.outcome == "any_error: 3 errors"
    assert trial.target.observe().stable == OLD.sha256 and trial.target.observe().canary is None
    assert trial.actions()[-2:] == ["roll_back", "end"]
    assert max(change["weight"] for change in trial.target.changes()) == 5
    assert trial.registry.champions() == []


def test_traffic_moves_back_before_anything_is_written(trial: Trial, folder: Path) -> None:
    (folder / "errors.json").write_text('{"50": 1}')
    trial.controller.run(trial.id)
    back = next(change for change in trial.target.changes() if change["was"] == 50)
    assert back["weight"] == 0 and back["decided"]["action"] == "advance"


def test_harm_after_promotion_brings_the_previous_one_back(trial: Trial, folder: Path) -> None:
    (folder / "errors.json").write_text('{"watch": 7}')
    done = trial.controller.run(trial.id)
    assert done.phase == "rolled_back" and done.promoted
    assert trial.target.observe().stable == OLD.sha256
    assert trial.registry.champions() == ["new", "old"]
    assert trial.actions()[-3:] == ["watch", "fall_back", "end"]


def test_a_canary_that_is_never_ready_ends_with_the_targets_word(trial: Trial, folder: Path) -> None:
    (folder / "never-ready").touch()
    done = trial.controller.run(trial.id)
    assert done.phase == "rolled_back" and "not ready within 5 s" in done.outcome


def test_pause_stops_the_stage_and_its_clock_and_resume_continues_it(trial: Trial) -> None:
    since = trial.until("stage", 1).since
    trial.ask("pause", "call centre is closed")
    assert trial.ticks(1).paused
    trial.clock.sleep(500)  # far longer than max_s
    held = trial.ticks(1)
    assert (held.phase, held.stage) == ("stage", 1)
    trial.ask("resume")
    resumed = trial.ticks(1)
    assert not resumed.paused and resumed.since > since
    assert trial.until("stage", 2)
    events = [(e.action, e.who, e.reason) for e in trial.history() if e.who == "bob"]
    assert events == [("pause", "bob", "bob: call centre is closed"), ("resume", "bob", "bob: because")]


def test_abort_removes_the_canary_and_records_who_requested_it(trial: Trial) -> None:
    trial.until("stage", 2)
    trial.ask("abort", "calls rose")
    done = trial.controller.run(trial.id)
    assert done.phase == "aborted" and done.outcome == "bob: calls rose"
    assert trial.target.observe().canary is None


def test_an_abort_is_next_whatever_was_requested_before_and_no_request_is_left_waiting(trial: Trial) -> None:
    trial.until("stage", 1)
    waiting = [
        trial.store.request(trial.id, what, "bob", "", trial.clock.now) for what in ("pause", "promote")
    ]
    trial.ask("abort", "calls rose")
    done = trial.ticks(1)
    assert (done.phase, done.outcome) == ("aborted", "bob: calls rose")
    assert max(change["weight"] for change in trial.target.changes()) == 5
    end = trial.history()[-1]
    assert [trial.store.answer(request) for request in waiting] == [end.sequence] * 2


def test_a_promotion_requested_while_the_target_is_unreachable_does_not_happen_later(trial: Trial) -> None:
    trial.until("stage", 0)
    trial.target.unreachable.touch()
    trial.ask("promote", "we know it")
    trial.ticks(1)
    trial.target.unreachable.unlink()
    assert trial.ticks(1).phase == "stage"
    assert "ask again when it can" in next(e for e in trial.history() if e.action == "refuse").reason


class Unpromoted(FileTarget):
    """Its cluster has no room."""

    def promote(self, candidate: Candidate) -> None:
        raise ServingError("no quota for another pod")


def test_a_promotion_that_is_stuck_is_judged_reported_and_can_be_aborted(trial: Trial, folder: Path) -> None:
    trial.controller = trial.another(target=Unpromoted(folder, trial.store))
    for _ in range(20):
        rollout = trial.ticks(1)
    assert rollout.phase == "promoting" and rollout.stuck and "no quota" in rollout.trouble
    (stuck,) = [event for event in trial.history() if event.action == "stuck"]
    assert "no quota for another pod" in stuck.reason
    trial.ask("pause")
    assert trial.ticks(1).phase == "promoting" and trial.actions()[-1] == "refuse"
    trial.ask("abort", "no quota")
    assert trial.ticks(1).phase == "aborted"
    assert trial.target.observe().stable == OLD.sha256 and trial.registry.champions() == []


def test_a_stuck_promotion_that_harms_is_taken_back(trial: Trial, folder: Path) -> None:
    trial.controller = trial.another(target=Unpromoted(folder, trial.store))
    assert trial.until_pending("promoting")
    (folder / "errors.json").write_text('{"watch": 3}')
    done = trial.ticks(1)
    assert (done.phase, done.outcome) == ("rolled_back", "any_error: 3 errors")
    assert trial.target.observe().weight == 0


def test_an_abort_after_the_target_has_promoted_brings_the_previous_one_back(trial: Trial) -> None:
    """The candidate is stable at the target, and the record does not state it yet."""
    trial.registry.unreachable.touch()
    assert trial.until_pending("promoting")
    assert trial.target.observe().stable == NEW.sha256
    trial.ask("abort", "calls rose")
    trial.registry.unreachable.unlink()
    done = trial.ticks(1)
    assert done.phase == "rolled_back" and done.outcome == "bob: calls rose"
    assert trial.target.observe().stable == OLD.sha256


def test_a_roll_back_is_recorded_only_when_the_target_shows_it(trial: Trial) -> None:
    trial.until("stage", 1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trial.target, "rollback", lambda: None)  # succeeds and changes nothing
        trial.ask("abort", "calls rose")
        rollout = trial.ticks(2)
    assert rollout.phase == "rolling_back" and "still gives the canary 5 %" in rollout.trouble
    assert trial.ticks(2).phase == "aborted"
    assert trial.target.observe().canary is None


def test_counts_are_stored_and_only_when_they_have_changed(trial: Trial) -> None:
    trial.until("stage", 1)
    trial.ask("pause")
    trial.ticks(10)
    looks = trial.store.observations(trial.id)
    begun = [window.begun.isoformat() for window in trial.store.load(trial.id).windows]
    assert [list(counts) for _, counts in looks] == [[begun[0]], [begun[1]]]
    assert [counts[which]["canary.requests"] for (_, counts), which in zip(looks, begun, strict=True)] == [
        100,
        100,
    ]


def test_a_controller_that_takes_over_counts_on_and_the_past_can_be_judged_again(trial: Trial) -> None:
    trial.until("stage", 1)
    trial.ticks(2)
    before = len(trial.store.observations(trial.id))
    trial.clock.sleep(60)
    trial.controller = trial.another()
    trial.controller.run(trial.id)
    looks = trial.store.observations(trial.id)
    assert len(looks) > before
    rollout = trial.store.load(trial.id)
    assert rollout.phase == "promoted"
    again = judge_again(rollout, looks, rollout.planned(trial.config))
    assert again is not None and not again.harm


def test_a_lease_is_renewed_while_an_action_takes_longer_than_it_lasts(folder: Path) -> None:
    config = plan(lease_s=0.3)
    store, seen = store_in(folder, config), []

    class Slow(FileTarget):
        def set_weight(self, percent: int, mirror: bool = False) -> None:
            time.sleep(1.0)
            with pytest.raises(LeaseHeld):
                store.take_lease("churn", "a rival", now())
            seen.append(percent)
            super().set_weight(percent, mirror)

    id = store.start("churn", Change(NEW, OLD, "ada", now(), "march"), config).id
    made = controller(folder, config, store=store, target=Slow(folder, store))
    while not seen:
        made.tick(id)
    assert seen == [0] and store.load(id).pending == 0


def test_promote_skips_to_promotion_and_what_makes_no_sense_is_refused(trial: Trial) -> None:
    trial.until("stage", 0)
    trial.ask("resume")
    trial.ask("promote", "we know it")
    trial.ticks(2)
    refused, promoted = [e for e in trial.history() if e.who == "bob"]
    assert refused.action == "refuse" and "not paused" in refused.reason
    assert promoted.reason == "bob: we know it (skips the stages of 5, 50, 100 %)"
    assert trial.controller.run(trial.id).phase == "promoted"


def test_a_promoted_model_can_be_taken_back_after_its_end(trial: Trial) -> None:
    done = trial.controller.run(trial.id)
    trial.store.reopen(done, "bob", "offers fail", trial.clock.now)
    again = trial.another().run(trial.id)
    assert again.phase == "rolled_back" and again.outcome == "bob: offers fail"
    assert trial.target.observe().stable == OLD.sha256
    assert trial.registry.champions() == ["new", "old"]
    with pytest.raises(RolloutError, match="nothing to take back"):
        trial.store.reopen(again, "bob", "once more", trial.clock.now)


def test_while_unreachable_the_weight_stays_then_it_continues(trial: Trial, folder: Path) -> None:
    trial.until("stage", 1)
    trial.target.unreachable.touch()
    trial.ticks(3)
    trial.target.unreachable.unlink()
    assert trial.target.observe().weight == 5
    assert trial.controller.run(trial.id).phase == "promoted"
    assert [a for a in trial.actions() if a in ("unreachable", "reachable")] == ["unreachable", "reachable"]


def test_evidence_that_is_out_of_reach_before_the_first_stage_delays_it(trial: Trial) -> None:
    """Nothing was asked of it before: the stage is entered only when its window can be opened."""
    trial.observer.unreachable.touch()
    waiting = trial.ticks(4)
    assert (waiting.phase, trial.target.observe().weight) == ("starting", 0)
    trial.observer.unreachable.unlink()
    assert trial.controller.run(trial.id).phase == "promoted"
    assert trial.actions()[1:5] == ["deploy", "unreachable", "reachable", "advance"]


@pytest.mark.parametrize("what", ["target", "observer"])
def test_out_of_reach_for_too_long_is_given_up(trial: Trial, what: str) -> None:
    trial.until("stage", 1)
    getattr(trial, what).unreachable.touch()
    trial.ticks(10)
    trial.target.unreachable.unlink(missing_ok=True)
    done = trial.controller.run(trial.id)
    assert done.phase == "rolled_back" and "out of reach" in done.outcome
    assert max(change["weight"] for change in trial.target.changes()) == 5


def test_a_roll_back_that_the_target_refuses_is_not_forgotten(trial: Trial, folder: Path) -> None:
    trial.until("stage", 1)
    (folder / "errors.json").write_text('{"5": 3}')

    class Stuck(FileTarget):
        def rollback(self) -> None:
            self.unreachable.touch()
            super().rollback()

    trial.controller = trial.another(target=Stuck(folder, trial.store))
    trial.clock.sleep(31)
    back = trial.ticks(2)
    assert back.phase == "rolling_back" and back.pending
    (folder / "errors.json").unlink()  # rules would let it pass by now
    trial.target.unreachable.unlink()
    trial.controller = trial.another()
    trial.clock.sleep(31)
    done = trial.controller.run(trial.id)
    assert done.phase == "rolled_back" and done.outcome == "any_error: 3 errors"
    assert trial.target.observe().weight == 0


def test_a_registry_out_of_reach_does_not_hold_traffic_up(trial: Trial) -> None:
    trial.registry.unreachable.touch()
    done = trial.controller.run(trial.id)
    assert done.phase == "promoted" and trial.target.observe().stable == NEW.sha256
    watch = next(event for event in trial.history() if event.action == "watch")
    assert "the registry does not follow yet" in watch.reason


def test_a_weight_that_was_raised_by_hand_is_corrected_in_a_window_of_its_own(trial: Trial) -> None:
    trial.until("stage", 1)
    trial.target.set_weight(80)
    corrected = trial.ticks(1)
    assert trial.target.observe().weight == 5
    assert [w.weight for w in corrected.windows] == [0, 5, 5]
    assert trial.history()[-1].action == "correct"


def test_only_one_controller_acts_and_one_that_lost_the_lease_stops_at_once(trial: Trial) -> None:
    trial.until("stage", 0)
    second = trial.another()
    with pytest.raises(LeaseHeld, match="controlled by"):
        second.tick(trial.id)
    trial.clock.sleep(31)  # the first was silent for too long
    second.tick(trial.id)
    changes = len(trial.target.changes())
    with pytest.raises(LeaseHeld):
        trial.controller.tick(trial.id)
    assert len(trial.target.changes()) == changes
    assert "take_over" in trial.actions()


def test_a_lease_lost_between_deciding_and_acting_leaves_traffic_alone(trial: Trial) -> None:
    """The slowest tick there is: another controller takes over while this one thinks."""
    rival = trial.another()
    seen: list[int] = []

    def meanwhile(point: str) -> None:
        if point == "decided" and trial.store.load(trial.id).phase == "stage" and not seen:
            seen.append(len(trial.target.changes()))
            trial.clock.sleep(31)
            trial.store.take_lease("churn", rival.holder, trial.clock.now)

    trial.controller = trial.another(faults=meanwhile)
    with pytest.raises(RolloutError):
        trial.until("stage", 3)
    assert len(trial.target.changes()) == seen[0]


def test_a_database_out_of_reach_stops_progress_but_not_the_way_back(trial: Trial, folder: Path) -> None:
    trial.until("stage", 1)
    (folder / "rollout.db").rename(folder / "away.db")
    (folder / "rollout.db").mkdir()
    trial.clock.sleep(1)
    with pytest.raises(RolloutError, match="rollouts at sqlite"):
        trial.controller.tick(trial.id)
    target = FileTarget(folder)
    assert target.observe().weight == 5
    trial.target._store = None  # in which the target records its changes
    (folder / "errors.json").write_text('{"5": 3}')
    with pytest.raises(RolloutError):
        trial.controller.tick(trial.id)
    assert target.observe().weight == 0

    (folder / "rollout.db").rmdir()
    (folder / "away.db").rename(folder / "rollout.db")
    done = trial.controller.run(trial.id)
    assert done.phase == "rolled_back" and "any_error: 3 errors" in done.outcome


def test_a_rollout_has_the_plan_it_was_started_with(trial: Trial) -> None:
    changed = plan(stages=[{"weight": 100, "max_s": 1}])
    rollout = trial.store.load(trial.id)
    assert [stage.weight for stage in rollout.planned(changed).stages] == [0, 5, 50, 100]


def test_notices_are_given_of_every_event_in_order(trial: Trial) -> None:
    trial.controller.run(trial.id)
    assert [notice.event.sequence for notice in trial.notices] == list(range(2, len(trial.history()) + 1))


def test_what_was_seen_last_can_be_read_by_other_processes(trial: Trial) -> None:
    trial.until("stage", 1)
    trial.ticks(1)
    look = trial.store.observation(trial.id)
    assert look is not None
    assert look["target"]["weight"] in (5, 50) and look["canary"]["requests"] == 100
    assert look["verdicts"][0]["rule"] == AnyError().name

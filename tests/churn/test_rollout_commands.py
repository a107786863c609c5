"""`churn rollout` and `churn rollback`, on a rollout whose traffic is a file.

The controller runs in a thread, as it would in `churn serve`; test_front_door.py runs commands as processes.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from churn import console
from churn.cli import main
from rollout.attendant import attend
from rollout.config import RolloutConfig
from rollout.observers.observer import Opened
from rollout.state import Change, Event, Rollout
from rollout.store import Store
from support.file_target import NEW, OLD, FileRegistry, FileTarget, controller, now, plan
from support.waits import within

WAITS = {
    "stages": [{"weight": 5, "max_s": 600, "min_s": 300}, {"weight": 100, "max_s": 600}],
    "watch_s": 0,
    "lease_s": 5,
}


class Desk:
    """A workspace with a database, and the commands that are run in it."""

    def __init__(self, folder: Path, printed: pytest.CaptureFixture[str]) -> None:
        self.folder, self.config, self._printed = folder, plan(**WAITS), printed
        (folder / "var").mkdir()
        self.store = Store(f"sqlite:///{folder}/var/rollout.db", self.config.lease_s)
        self.target = FileTarget(folder)

    def start(self) -> Rollout:
        return self.store.start("churn", Change(NEW, OLD, "ada", now(), "march"), self.config)

    @contextmanager
    def controlled(self) -> Iterator[None]:
        """Run a controller during the block."""
        over = threading.Event()

        def make(rollout: Rollout) -> object:
            return controller(self.folder, self.config, store=self.store, sleep=over.wait)

        thread = threading.Thread(target=attend, args=(self.store, "churn", make, over, 0.05))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(20)

    def until(self, condition: Callable[[], bool]) -> None:
        within(30, condition, lambda: self.store.newest("churn"))

    def run(self, *words: str, code: int = 0) -> tuple[str, str]:
        """stdout and stderr of `churn WORDS`, whose exit code has to be `code`."""
        self._printed.readouterr()
        returned = main([*words, "--set", f"workspace={self.folder / 'var'}"])
        out, err = self._printed.readouterr()
        assert returned == code, out + err
        assert "Traceback" not in err, err
        return out, err


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    monkeypatch.setattr(console.out, "width", 220)
    monkeypatch.setattr(console.err, "width", 220)
    monkeypatch.setenv("LOGNAME", "bob")
    return Desk(tmp_path, capsys)


def test_before_the_first_rollout(desk: Desk) -> None:
    assert "There has been no rollout" in desk.run("rollout", "status")[0]
    assert json.loads(desk.run("rollout", "status", "--json")[0]) == {"phase": None}
    assert "none runs" in desk.run("rollout", "abort", "--reason", "x", code=1)[1]
    assert "no rollout has promoted anything" in desk.run("rollback", "--reason", "x", code=1)[1]
    assert "no archive yet" in desk.run("rollout", "start", "--reason", "x", code=1)[1]


def test_without_a_controller_the_command_reports_how_to_start_one(desk: Desk) -> None:
    rollout = desk.start()
    output = desk.run("rollout", "pause", "--reason", "lunch", code=5)[1]
    assert "No controller runs" in output and "churn serve" in output
    assert "none" in desk.run("rollout", "status", code=5)[0]
    request = desk.store.next_request(rollout.id)
    assert request is not None and (request.who, request.reason) == ("bob", "lunch")


def test_a_request_without_a_controller_is_recorded_and_does_not_end_with_0(desk: Desk) -> None:
    rollout = desk.start()
    for words in (["resume"], ["promote", "--reason", "x"], ["abort", "--reason", "x"]):
        assert "No controller runs" in desk.run("rollout", *words, code=5)[1]
    assert "No controller runs" in desk.run("rollback", "--reason", "x", code=5)[1]
    with desk.controlled():
        desk.until(lambda: desk.store.load(rollout.id).over)
    assert desk.store.load(rollout.id).phase == "aborted", "of all requests, the abort is executed first"


def test_a_rollout_from_its_start_to_its_rollback(desk: Desk) -> None:
    rollout = desk.start()
    with desk.controlled():
        desk.until(lambda: desk.target.observe().weight == 5)
        desk.until(lambda: "any_error" in desk.run("rollout", "status", code=4)[0])  # after the first look
        shown, _ = desk.run("rollout", "status", code=4)
        assert "5 % to the canary" in shown and "of 300 s" in shown
        record = json.loads(desk.run("rollout", "status", "--json", code=4)[0])
        assert record["phase"] == "stage" and record["controller"]
        assert record["look"]["canary"]["requests"] == 100
        assert record["look"]["verdicts"][0]["numbers"] == {"errors": 0}

        assert "not paused" in desk.run("rollout", "resume", code=1)[1]
        assert "bob: lunch" in desk.run("rollout", "pause", "--reason", "lunch")[0]
        assert "paused" in desk.run("rollout", "status", code=5)[0]
        desk.run("rollout", "resume")
        assert "skips the stages of 100 %" in desk.run("rollout", "promote", "--reason", "we know it")[0]
        desk.run("rollout", "watch")  # ends with the rollout
        assert desk.target.observe().stable == NEW.sha256

        listed, _ = desk.run("rollout", "history")
        for word in (
            "start",
            "deploy",
            "advance",
            "pause",
            "resume",
            "refuse",
            "promote",
            "finish",
            "bob: lunch",
        ):
            assert word in listed, word
        assert "version bbbbbbbbbbbb" in desk.run("rollback", "--reason", "offers fail")[0]
    assert desk.target.observe().stable == OLD.sha256
    assert FileRegistry(desk.folder).champions() == ["new", "old"]
    desk.run("rollout", "status", code=3)
    history = json.loads(desk.run("rollout", "history", rollout.id, "--json")[0])
    assert history["rollout"]["outcome"] == "bob: offers fail"
    assert [event["sequence"] for event in history["events"]] == list(range(1, len(history["events"]) + 1))
    assert "rolled back" in desk.run("rollout", "history", "--all")[0]


def test_abort_ends_with_traffic_on_stable_and_watch_prints_each_change_as_json(desk: Desk) -> None:
    desk.start()
    with desk.controlled():
        desk.until(lambda: desk.target.observe().weight == 5)
        assert "answered by version bbbbbbbbbbbb" in desk.run("rollout", "abort", "--reason", "calls rose")[0]
    assert desk.target.observe().canary is None
    lines = desk.run("rollout", "watch", "--json", code=3)[0].splitlines()
    assert json.loads(lines[-1])["phase"] == "aborted"


def test_a_past_rollout_is_judged_again_under_another_policy(desk: Desk) -> None:
    assert "nothing was counted yet" in desk.run("rollout", "judge", code=1)[1]
    rollout = desk.start()
    begun = now()
    window = Opened(5, False, begun)
    opened = replace(rollout, windows=(window,), phase="stage", deployed=True)
    saved = desk.store.save(opened, Event(begun, "advance", "on", weight=5, phase="stage"))
    counts = {
        "stable.requests": 9500.0,
        "stable.errors": 95.0,
        "canary.requests": 500.0,
        "canary.errors": 40.0,
    }
    looks = {begun + timedelta(seconds=1): {begun.isoformat(): counts}}
    desk.store.save_observation(saved, {}, looks)
    as_it_was = desk.run("rollout", "judge", rollout.id, code=3)[0]
    assert "would have been rolled back" in " ".join(as_it_was.split())
    tolerant = ("--set", "rollout.rules.error_rate.tolerance=0.2")
    judged = json.loads(desk.run("rollout", "judge", "--json", *tolerant)[0])
    assert (judged["rolled_back"], judged["canary_requests"], judged["weight"]) == (False, 500, 5)


def test_an_invalid_plan_is_one_line(desk: Desk) -> None:
    assert "rollout.alpha" in desk.run("rollout", "status", "--set", "rollout.alpha=2", code=2)[1]
    with pytest.raises(ValueError, match="the last weight is 100"):
        RolloutConfig.model_validate({"stages": [{"weight": 5, "max_s": 1}]})

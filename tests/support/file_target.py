"""A target that is a JSON file, and an observer of it: what the controller's tests split traffic with.

The file is the traffic; it outlives the process that changed it. Beside it grows `changes.jsonl`: every
change of weight, with the state in the database at that moment.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.errors import ServingError
from rollout.config import RolloutConfig
from rollout.controller import Controller, no_fault
from rollout.evidence import Arm, Evidence, Window
from rollout.observers.observer import Opened
from rollout.rules.rule import Verdict
from rollout.session import Clock, Connections
from rollout.state import Change
from rollout.store import Store
from rollout.targets.target import Candidate, TargetState

NEW = Candidate("/store/new.mar", "n" * 64, "aaaaaaaaaaaa")
OLD = Candidate("/store/old.mar", "o" * 64, "bbbbbbbbbbbb")
PLAN: dict[str, Any] = {
    "stages": [
        {"weight": 0, "mirror": True, "max_s": 60, "min_requests": 10},
        {"weight": 5, "max_s": 60, "min_requests": 10},
        {"weight": 50, "max_s": 60, "min_requests": 10},
        {"weight": 100, "max_s": 60, "min_requests": 10},
    ],
    "tick_s": 0.01,
    "lease_s": 0.2,
    "watch_s": 0.05,
    "ready_timeout_s": 5,
    "reach_timeout_s": 5,
}


class FileTarget:
    name = "file"
    can_mirror = True

    def __init__(self, folder: Path, store: Store | None = None) -> None:
        self._file, self._changes = folder / "traffic.json", folder / "changes.jsonl"
        self._store = store
        self.unreachable = folder / "unreachable"
        """While this file is there, nothing can be read."""
        if not self._file.exists():
            self._write(TargetState(0, False, None, OLD.sha256, ready=False))

    def observe(self) -> TargetState:
        if self.unreachable.exists():
            raise ServingError("the file target does not answer")
        return TargetState(**json.loads(self._file.read_text()))

    def serving(self) -> Candidate | None:
        return next((one for one in (NEW, OLD) if one.sha256 == self.observe().stable), None)

    def deploy(self, candidate: Candidate) -> None:
        ready = not (self._file.parent / "never-ready").exists()
        self._change(replace(self.observe(), canary=candidate.sha256, ready=ready))

    def set_weight(self, percent: int, mirror: bool = False) -> None:
        self._change(replace(self.observe(), weight=percent, mirror=mirror))

    def promote(self, candidate: Candidate) -> None:
        self._change(
            replace(self.observe(), weight=0, mirror=False, canary=None, stable=candidate.sha256, ready=False)
        )

    def rollback(self) -> None:
        self._change(replace(self.observe(), weight=0, mirror=False))
        self._change(replace(self.observe(), canary=None, ready=False))

    def restore(self, candidate: Candidate) -> None:
        self.promote(candidate)

    def changes(self) -> list[dict[str, Any]]:
        if not self._changes.exists():
            return []
        return [json.loads(line) for line in self._changes.read_text().splitlines()]

    def _change(self, state: TargetState) -> None:
        before = self.observe()
        if state == before:
            return
        known = self._store.newest("churn") if self._store else None
        decided = None
        if self._store and known:
            last = self._store.history(known.id)[-1]
            decided = {
                "sequence": last.sequence,
                "action": last.action,
                "weight": last.weight,
                "phase": last.phase,
            }
        self._write(state)
        with self._changes.open("a") as file:
            file.write(json.dumps({**asdict(state), "was": before.weight, "decided": decided}) + "\n")

    def _write(self, state: TargetState) -> None:
        fresh = self._file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(asdict(state)))
        fresh.replace(self._file)


class FileObserver:
    """A hundred requests in each window, as soon as it is open; `errors` of them by the canary's fault."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.unreachable = folder / "blind"

    def mark(self) -> dict[str, float]:
        if self.unreachable.exists():
            raise ServingError("the proxy does not answer")
        return {"requests": 1.0}

    def observe(self, windows: Sequence[Opened], now: datetime) -> Evidence:
        self.mark()
        file = self._folder / "errors.json"
        errors = json.loads(file.read_text()) if file.exists() else {}
        return Evidence(
            tuple(
                Window(
                    w.weight, w.mirror, (now - w.begun).total_seconds(),
                    stable=Arm(requests=100),
                    canary=Arm(requests=100, errors=errors.get("watch" if number >= 4 else str(w.weight), 0)),
                )
                for number, w in enumerate(windows)
            )
        )  # fmt: skip


@dataclass(frozen=True)
class AnyError:
    """Rolls back at the first error of the canary in the present window."""

    name: str = "any_error"

    def judge(self, evidence: Evidence, alpha: float) -> Verdict:
        errors = evidence.current.canary.errors
        if errors:
            return Verdict(self.name, "roll_back", f"{errors} errors", {"errors": errors})
        return Verdict(self.name, "advance", "no errors", {"errors": 0})


class FileRegistry:
    """The champion as a file, and every archive that it has been since."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "registry.jsonl"
        self.unreachable = folder / "no-registry"

    def follow(self, change: Change, numbers: Any) -> str:
        if self.unreachable.exists():
            raise ServingError("the registry does not answer")
        if ([OLD.sha256, *self._lines()])[-1] != change.to.sha256:
            with self._file.open("a") as file:
                file.write(change.to.sha256 + "\n")
        return "the registry follows"

    def champions(self) -> list[str]:
        """Since the beginning, when OLD was it: `new` or `old`, one a change."""
        return [{NEW.sha256: "new", OLD.sha256: "old"}.get(sha256, sha256) for sha256 in self._lines()]

    def _lines(self) -> list[str]:
        return self._file.read_text().split() if self._file.exists() else []


@contextmanager
def memory_folder(otherwise: Path) -> Iterator[Path]:
    """A folder whose writes need no disk, where there is one: these tests commit thousands of times."""
    memory = Path("/dev/shm")  # noqa: S108  # a folder of a name of its own is made in it
    if not memory.is_dir():
        yield otherwise
        return
    with tempfile.TemporaryDirectory(prefix="rollout-", dir=memory) as name:
        yield Path(name)


def now() -> datetime:
    return datetime.now(UTC)


def plan(**more: object) -> RolloutConfig:
    return RolloutConfig.model_validate(PLAN | more)


def store_in(folder: Path, config: RolloutConfig) -> Store:
    return Store(f"sqlite:///{folder}/rollout.db", config.lease_s)


def controller(folder: Path, config: RolloutConfig, **more: Any) -> Controller:
    """A controller of the traffic in `folder`, on the real clock unless `more` says otherwise."""
    store = more.pop("store", None) or store_in(folder, config)
    plain: dict[str, Any] = {
        "target": FileTarget(folder, store),
        "observer": FileObserver(folder),
        "registry": FileRegistry(folder),
    }
    rules, faults = more.pop("rules", (AnyError(),)), more.pop("faults", no_fault)
    clock = Clock(more.pop("clock", now), more.pop("sleep", time.sleep))
    return Controller(config, rules, Connections(store, **(plain | more)), clock, faults)

"""A rollout as it is remembered: all that a controller needs to go on where another one died.

Phases: starting -> stage (each of the plan in turn) -> promoting -> watching -> promoted, and from all of
them rolling_back -> rolled_back or aborted. `pending` says that the state was written but not yet brought
about at the target: whoever finds it so does it (again), since every action may be repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, get_args

from rollout.config import RolloutConfig
from rollout.observers.observer import Opened
from rollout.rules.rule import Verdict
from rollout.targets.target import Candidate

Phase = Literal[
    "starting", "stage", "promoting", "watching", "rolling_back", "promoted", "rolled_back", "aborted"
]
PHASES: tuple[Phase, ...] = get_args(Phase)
END: tuple[Phase, ...] = ("promoted", "rolled_back", "aborted")

Action = Literal[
    "wait",  # nothing changes; the reason says what is awaited
    "redo",  # of an intention that was not confirmed: no event of its own
    "start", "take_over", "deploy", "advance", "correct", "promote", "watch", "finish",
    "pause", "resume", "refuse",
    "unreachable", "reachable",  # target or observer out of reach, and back
    "stuck",  # what is tried again and again has not been done for long; said once
    "roll_back", "fall_back", "end", "reopen",
]  # fmt: skip

Asked = Literal["pause", "resume", "promote", "abort"]

PLAN = {
    "stages", "on_timeout", "alpha", "rules", "block_s", "ready_timeout_s", "unready_timeout_s", "watch_s",
    "reach_timeout_s", "segments", "labels",
}  # fmt: skip
"""What a rollout keeps from the settings it was started with, whatever they say later."""


@dataclass(frozen=True)
class Rollout:
    id: str
    model: str
    candidate: Candidate
    previous: Candidate | None
    """What was stable before; None: there is nothing to fall back to after promotion."""
    phase: Phase
    stage: int
    """Of the plan, from 0; while `starting`, the first."""
    paused: bool
    windows: tuple[Opened, ...]
    started: datetime
    by: str
    reason: str
    """Why it was started."""
    plan: Mapping[str, Any]
    since: datetime
    """When phase and stage began, moved on by the length of pauses."""
    sequence: int = 0
    """Events written so far."""
    pending: int = 0
    """Sequence of the event whose intention is not confirmed; 0: there is none."""
    deployed: bool = False
    """Whether the target has been asked for the canary."""
    paused_since: datetime | None = None
    unreached_since: datetime | None = None
    unready_since: datetime | None = None
    """Since when a canary that had been ready is not."""
    trouble: str = ""
    """Why the last attempt at what is pending failed."""
    stuck: bool = False
    """Whether it was reported that what is pending cannot be done."""
    promoted: bool = False
    """Whether the candidate has become stable: going back is then a restore."""
    ending: Phase | None = None
    """Which end a roll-back that is under way leads to."""
    controller: str = ""
    """Who acted last."""
    ended: datetime | None = None
    outcome: str = ""
    """Why it ended."""

    @property
    def over(self) -> bool:
        return self.phase in END

    def planned(self, config: RolloutConfig) -> RolloutConfig:
        """The settings, with the plan that this rollout was started with."""
        return RolloutConfig.model_validate(config.model_dump(mode="json") | dict(self.plan))

    def wanted(self, config: RolloutConfig) -> tuple[int, bool]:
        """Weight and mirroring that the target should show."""
        if self.phase == "stage":
            stage = config.stages[self.stage]
            return stage.weight, stage.mirror
        return (100, False) if self.phase in ("promoting", "watching", "promoted") else (0, False)

    def opened(self, weight: int, mirror: bool, now: datetime, counters: Mapping[str, float]) -> "Rollout":
        """With a new window, the one before closed."""
        fresh = Opened(weight, mirror, now, before=dict(counters))
        return replace(self, windows=(*self.closed(now, counters).windows, fresh))

    def closed(self, now: datetime, counters: Mapping[str, float] | None) -> "Rollout":
        """With the last window ended, if it was not."""
        if not self.windows or self.windows[-1].ended is not None:
            return self
        after = None if counters is None else dict(counters)
        return replace(self, windows=(*self.windows[:-1], replace(self.windows[-1], ended=now, after=after)))


@dataclass(frozen=True)
class Event:
    """One line of the history, never changed."""

    at: datetime
    action: Action
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    weight: int = 0
    """Percent that the canary is to have from here on; the new stable after promotion has 100."""
    mirror: bool = False
    phase: Phase = "starting"
    stage: int = 0
    who: str = ""
    """A person, or the controller."""
    sequence: int = 0
    """From 1; the store counts."""
    done: bool = True
    """False: recorded as intended and not, or not yet, confirmed by the target."""


@dataclass(frozen=True)
class Request:
    """What a person asked of the controller."""

    number: int
    at: datetime
    what: Asked
    who: str
    reason: str

    @property
    def why(self) -> str:
        return f"{self.who}: {self.reason}" if self.reason else f"asked by {self.who}"


def plan_of(config: RolloutConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", include=PLAN)

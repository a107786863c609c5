"""The state of a rollout, as the database stores it: all that a controller needs to continue after another
one.

Phases: starting -> stage (each of the plan in turn) -> promoting -> watching -> promoted, and from all of
them rolling_back -> rolled_back or aborted. While `pending` is set, the state is recorded but the target has
not been changed for certain: a controller that reads it so repeats the action, since every action may be
repeated.
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
    "wait",  # nothing changes; the reason states what is missing
    "redo",  # repeats an intention that was not confirmed; it is no event
    "start", "take_over", "deploy", "advance", "correct", "promote", "watch", "finish",
    "pause", "resume", "refuse",
    "unreachable", "reachable",  # target or observer, and again
    "stuck",  # an action that is repeated has failed for long; reported once
    "roll_back", "fall_back", "end", "reopen",
]  # fmt: skip

RequestKind = Literal["pause", "resume", "promote", "abort"]

PLAN = {
    "stages", "on_timeout", "alpha", "rules", "block_s", "ready_timeout_s", "unready_timeout_s", "watch_s",
    "reach_timeout_s", "segments", "labels",
}  # fmt: skip
"""The settings that stay as they were when a rollout was started."""


@dataclass(frozen=True)
class Change:
    """Another archive becomes stable: which one, by whom, when and why."""

    to: Candidate
    previous: Candidate | None
    """What was stable before; None: nothing was."""
    who: str
    at: datetime
    why: str


@dataclass(frozen=True)
class Rollout:
    """A row of the table `rollouts`; its fields are the columns."""

    id: str
    model: str
    candidate: Candidate
    previous: Candidate | None
    """What was stable before; None: there is nothing to restore after promotion."""
    phase: Phase
    stage: int
    """Index in the plan, from 0; 0 while `starting`."""
    paused: bool
    windows: tuple[Opened, ...]
    started: datetime
    by: str
    reason: str
    """Why it was started."""
    plan: Mapping[str, Any]
    since: datetime
    """When phase and stage began, plus the length of pauses."""
    sequence: int = 0
    """Events written so far."""
    pending: int = 0
    """Sequence number of the event whose intention is not confirmed; 0: there is none."""
    deployed: bool = False
    """Whether the target has been requested to start the canary."""
    paused_since: datetime | None = None
    unreached_since: datetime | None = None
    unready_since: datetime | None = None
    """Since when a canary that had been ready is not."""
    trouble: str = ""
    """Why the last attempt at the pending action failed."""
    stuck: bool = False
    """Whether it was reported that the pending action fails again and again."""
    promoted: bool = False
    """Whether the candidate has become stable: going back is then a restore."""
    ending: Phase | None = None
    """The final phase of a roll-back that is under way."""
    controller: str = ""
    """The controller that acted last."""
    ended: datetime | None = None
    outcome: str = ""
    """Why it ended."""

    @property
    def over(self) -> bool:
        return self.phase in END

    def planned(self, config: RolloutConfig) -> RolloutConfig:
        """The settings with the plan of this rollout."""
        return RolloutConfig.model_validate(config.model_dump(mode="json") | dict(self.plan))

    def wanted(self, config: RolloutConfig) -> tuple[int, bool]:
        """Weight and mirroring that the target should have."""
        if self.phase == "stage":
            stage = config.stages[self.stage]
            return stage.weight, stage.mirror
        return (100, False) if self.phase in ("promoting", "watching", "promoted") else (0, False)

    def opened(self, weight: int, mirror: bool, now: datetime, counters: Mapping[str, float]) -> "Rollout":
        """With a new window, and the window before it closed."""
        fresh = Opened(weight, mirror, now, before=dict(counters))
        return replace(self, windows=(*self.closed(now, counters).windows, fresh))

    def closed(self, now: datetime, counters: Mapping[str, float] | None) -> "Rollout":
        """With the last window closed, if it was open."""
        if not self.windows or self.windows[-1].ended is not None:
            return self
        after = None if counters is None else dict(counters)
        return replace(self, windows=(*self.windows[:-1], replace(self.windows[-1], ended=now, after=after)))


@dataclass(frozen=True)
class Event:
    """One entry of the history, which is never changed."""

    at: datetime
    action: Action
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    weight: int = 0
    """Percent that the canary is to have from then on; 100 after promotion."""
    mirror: bool = False
    phase: Phase = "starting"
    stage: int = 0
    who: str = ""
    """A person, or the controller."""
    sequence: int = 0
    """From 1; the store assigns it."""
    done: bool = True
    """False: an intention that is not confirmed."""


@dataclass(frozen=True)
class Request:
    """A request of a person to the controller."""

    number: int
    at: datetime
    what: RequestKind
    who: str
    reason: str

    @property
    def why(self) -> str:
        return f"{self.who}: {self.reason}" if self.reason else f"requested by {self.who}"


def plan_of(config: RolloutConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", include=PLAN)

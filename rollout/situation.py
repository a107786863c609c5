"""The input of a decision (state, observation, request), the decision, and the texts of its reason."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite

from rollout.config import RolloutConfig
from rollout.evidence import Evidence
from rollout.rules.rule import Verdict
from rollout.state import Action, Phase, Request, Rollout
from rollout.targets.target import TargetState


@dataclass(frozen=True)
class Observation:
    """What a controller observes in one tick."""

    at: datetime
    target: TargetState | None = None
    """None: it cannot be reached."""
    evidence: Evidence | None = None
    """None: its source cannot be reached."""
    verdicts: tuple[Verdict, ...] = ()
    trouble: str = ""
    """The errors of what could not be reached."""
    can_mirror: bool = True
    """Target.can_mirror."""

    @property
    def reached(self) -> bool:
        return self.target is not None and self.evidence is not None


@dataclass(frozen=True)
class Decision:
    action: Action
    reason: str
    """One line of text with the numbers."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    answers: Request | None = None
    ending: Phase | None = None
    """The final phase of a roll-back."""


@dataclass(frozen=True)
class Situation:
    """The argument of every stepper."""

    config: RolloutConfig
    rollout: Rollout
    seen: Observation
    request: Request | None

    @property
    def elapsed_s(self) -> float:
        """Seconds in this phase or stage, without pauses that have ended."""
        return (self.seen.at - self.rollout.since).total_seconds()

    @property
    def pending_s(self) -> float:
        """Seconds since the pending action was decided."""
        rollout = self.rollout
        windowed = rollout.phase == "stage" and rollout.windows
        since = rollout.windows[-1].begun if windowed else rollout.since
        return (self.seen.at - since).total_seconds()

    @property
    def unreached_s(self) -> float:
        since = self.rollout.unreached_since
        return 0.0 if since is None else (self.seen.at - since).total_seconds()

    @property
    def target(self) -> TargetState:
        """Only for steppers after `unreachable`, which decides where there is none."""
        assert self.seen.target is not None
        return self.seen.target

    @property
    def candidate_is_stable(self) -> bool:
        """By the record, or by what the target shows."""
        target = self.seen.target
        return self.rollout.promoted or candidate_is_stable(self.rollout, target)


Stepper = Callable[[Situation], Decision | None]


def candidate_is_stable(rollout: Rollout, target: TargetState | None) -> bool:
    """Whether the target has made this rollout's candidate stable, recorded or not."""
    return target is not None and rollout.deployed and target.stable == rollout.candidate.sha256


def not_back(rollout: Rollout, target: TargetState) -> str:
    """What is missing before a roll-back is done; empty: customers get what was stable before."""
    candidate, previous = rollout.candidate, rollout.previous
    if target.weight or target.canary == candidate.sha256:
        return f"the target still gives the canary {target.weight} %"
    if previous is None or previous.sha256 == candidate.sha256:
        return ""
    if candidate_is_stable(rollout, target):
        return f"the target still has the candidate {candidate.version} as stable"
    return ""


# decisions that several steppers take


def go_back(
    s: Situation,
    reason: str,
    ending: Phase,
    request: Request | None = None,
    numbers: Mapping[str, float] | None = None,
) -> Decision:
    """Back to what was stable: by removing the canary, or after promotion by restoring the previous
    archive."""
    if s.candidate_is_stable:
        return Decision("fall_back", reason, numbers or {}, request, "rolled_back")
    return Decision("roll_back", reason, numbers or {}, request, ending)


def harm_of(s: Situation) -> Decision | None:
    bad = [verdict for verdict in s.seen.verdicts if verdict.answer == "roll_back"]
    if not bad:
        return None
    return go_back(s, "; ".join(f"{v.rule}: {v.reason}" for v in bad), "rolled_back", numbers=numbers_of(s))


def still_paused(s: Situation) -> Decision | None:
    if not s.rollout.paused:
        return None
    return Decision("wait", "paused; `churn rollout resume` goes on", numbers_of(s))


# words and numbers


def named(config: RolloutConfig, stage: int) -> str:
    return split(config.stages[stage].weight, config.stages[stage].mirror)


def split(weight: int, mirror: bool) -> str:
    return "shadow" if mirror else f"{weight} %"


def because(detail: str) -> str:
    return f": {detail}" if detail else ""


def seconds(value: float) -> dict[str, float]:
    return {"seconds": round(value, 3)}


def numbers_of(s: Situation) -> dict[str, float]:
    """The numbers of a decision: seconds, requests, and each rule's numbers under its name."""
    numbers: dict[str, float] = seconds(s.elapsed_s)
    if s.seen.evidence is not None:
        window = s.seen.evidence.current
        numbers |= {"canary_requests": window.canary.requests, "stable_requests": window.stable.requests}
    for verdict in s.seen.verdicts:
        numbers |= {f"{verdict.rule}.{name}": v for name, v in verdict.numbers.items() if isfinite(v)}
    return numbers

"""What a rollout does next: a pure function of what is remembered, what is seen and what people ask.

Each stepper answers one question and gives a Decision, or None to ask the next one. Safety comes first in
every phase: a person's abort, then what cannot be reached, then a target that is not as recorded, then rules;
going on is the last question.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite

from rollout.config import RolloutConfig
from rollout.evidence import Evidence
from rollout.rules.rule import Verdict
from rollout.state import Action, Phase, Request, Rollout
from rollout.targets.target import TargetState

UNREADY_LOOKS = 3
"""In a row, before a canary that was ready counts as dead: one failed probe is no death."""


@dataclass(frozen=True)
class Look:
    """All that is seen in one tick."""

    at: datetime
    target: TargetState | None = None
    """None: out of reach."""
    evidence: Evidence | None = None
    verdicts: tuple[Verdict, ...] = ()
    trouble: str = ""
    """What could not be reached, in its own words."""
    can_mirror: bool = True
    """Of the target: see Target.can_mirror."""

    @property
    def reached(self) -> bool:
        return self.target is not None and self.evidence is not None


@dataclass(frozen=True)
class Decision:
    action: Action
    reason: str
    """One line for a person, with the numbers in it."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    answers: Request | None = None
    ending: Phase | None = None
    """Of a roll-back: where it leads."""


@dataclass(frozen=True)
class Situation:
    """What every stepper is given."""

    config: RolloutConfig
    rollout: Rollout
    look: Look
    request: Request | None

    @property
    def elapsed_s(self) -> float:
        """In this phase or stage, without pauses that have ended."""
        return (self.look.at - self.rollout.since).total_seconds()

    @property
    def unreached_s(self) -> float:
        since = self.rollout.unreached_since
        return 0.0 if since is None else (self.look.at - since).total_seconds()


Stepper = Callable[[Situation], Decision | None]


def decide(config: RolloutConfig, rollout: Rollout, look: Look, request: Request | None = None) -> Decision:
    """The next step of `rollout`, whose plan `config` holds. Never raises; when in doubt, `wait`."""
    situation = Situation(config, rollout, look, request)
    for stepper in STEPPERS[rollout.phase]:
        decision = stepper(situation)
        if decision is not None:
            return decision
    return Decision("wait", "nothing to do")


# what people ask


def obey(s: Situation) -> Decision | None:
    """An abort is taken also where the target cannot be reached: the way back then waits for it."""
    request = s.request
    if request is None:
        return None
    refused = _refusal(s, request)
    if refused:
        return Decision("refuse", f"{request.what}: {refused}", answers=request)
    if request.what == "abort":
        return _back(s, request.told, "aborted", request)
    if request.what == "promote":
        # kept until the target is there
        return None if s.look.target is None else _skip(s, request)
    return Decision(request.what, request.told, answers=request)


def _refusal(s: Situation, request: Request) -> str:
    rollout, target = s.rollout, s.look.target
    if request.what == "pause" and rollout.paused:
        return "it is paused already"
    if request.what == "resume" and not rollout.paused:
        return "it is not paused"
    if request.what == "promote":
        if rollout.promoted:
            return "it is promoted already"
        if target is not None and not (target.ready and target.canary == rollout.candidate.sha256):
            return f"the canary is not ready{_because(target.detail)}"
    if request.what == "abort" and rollout.promoted and rollout.previous is None:
        return "nothing was stable before it; deploy another archive"
    return ""


def _skip(s: Situation, request: Request) -> Decision:
    weights = [stage.weight for stage in s.config.stages[s.rollout.stage + 1 :]]
    skipped = f" (skips the stages of {', '.join(map(str, weights))} %)" if weights else ""
    return Decision("promote", request.told + skipped, _numbers(s), answers=request)


# what cannot be reached


def reach(s: Situation) -> Decision | None:
    """Out of reach, the weight stays as it is; after `reach_timeout_s` the rollout is given up.

    An action that failed counts as out of reach until it has been done.
    """
    rollout, look, limit = s.rollout, s.look, s.config.reach_timeout_s
    if rollout.unreached_since is None:
        return None if look.reached else Decision("lose", look.trouble)
    if s.unreached_s < limit:
        if not look.reached:
            return Decision("wait", f"out of reach for {s.unreached_s:.0f} of {limit:g} s: {look.trouble}")
        return None if rollout.pending else _reached(s)
    if look.target is None:
        return Decision("wait", f"given up; rolls back as soon as the target is reached: {look.trouble}")
    reason = f"target or evidence were out of reach for {s.unreached_s:.0f} s, longer than {limit:g} s"
    return _back(s, reason, "rolled_back")


def reach_patiently(s: Situation) -> Decision | None:
    """The same where giving up is no help: the candidate has been judged, and all traffic is its."""
    rollout, look = s.rollout, s.look
    if look.reached:
        return None if rollout.unreached_since is None or rollout.pending else _reached(s)
    if rollout.unreached_since is None:
        return Decision("lose", look.trouble)
    overdue = s.elapsed_s >= s.config.watch_s + s.config.reach_timeout_s
    if rollout.phase == "watching" and overdue and not rollout.paused:
        return Decision("finish", f"promoted, but it could not be watched to the end: {look.trouble}")
    return Decision("wait", f"out of reach for {s.unreached_s:.0f} s: {look.trouble}")


def _reached(s: Situation) -> Decision:
    return Decision("reach", f"in reach again after {s.unreached_s:.0f} s", _seconds(s.unreached_s))


def unfinished(s: Situation) -> Decision | None:
    """Whoever intended it died, or the target refused: done (again)."""
    return Decision("redo", "the last step was not confirmed: done again") if s.rollout.pending else None


# starting


def unserved(s: Situation) -> Decision | None:
    target = _target(s)
    if target.stable == s.rollout.candidate.sha256:
        return Decision("end", "it is stable already; there is nothing to roll out", ending="aborted")
    return None


def deployed(s: Situation) -> Decision | None:
    rollout, target = s.rollout, _target(s)
    if not rollout.deployed:
        return Decision("deploy", f"canary {rollout.candidate.version} is brought up at weight 0")
    if target.canary == rollout.candidate.sha256 and target.ready:
        return None
    if s.elapsed_s >= s.config.ready_timeout_s:
        reason = f"the canary was not ready within {s.config.ready_timeout_s:g} s{_because(target.detail)}"
        return _back(s, reason, "rolled_back", numbers=_seconds(s.elapsed_s))
    return Decision("wait", f"the canary is not ready yet ({s.elapsed_s:.0f} s){_because(target.detail)}")


def first_stage(s: Situation) -> Decision | None:
    if s.rollout.paused:
        return _paused(s)
    return Decision(
        "advance", f"the canary is ready; first stage: {_named(s.config, 0)}", _seconds(s.elapsed_s)
    )


# a stage


def found(s: Situation) -> Decision | None:
    """A target that is not as recorded: somebody died in the middle of something, or meddled."""
    rollout, target = s.rollout, _target(s)
    weight, mirror = rollout.wanted(s.config)
    if target.canary != rollout.candidate.sha256:
        if target.stable == rollout.candidate.sha256:
            return Decision("promote", "found promoted at the target, not by this rollout")
        what = "no canary" if target.canary is None else "another canary"
        return _back(s, _found_reason(s, f"the target has {what}: taken back by hand, or by a controller"
                                         " that died before it could record it"), "rolled_back")  # fmt: skip
    if rollout.pending:
        return unfinished(s)
    asked = target.weight if target.asked is None else target.asked
    if asked == 0 < weight:
        return _back(s, _found_reason(s, f"the target gives the canary 0 % instead of {weight} %: taken back"
                                         " by hand, or by a controller that died before it could record it"),
                     "rolled_back")  # fmt: skip
    mirrors = target.mirror == mirror or not s.look.can_mirror
    if asked != weight or target.weight > weight or not mirrors:
        has, wanted = _split(target.weight, target.mirror), _split(weight, mirror)
        wrong = f"the target has {has} where {wanted} was decided"
        if s.elapsed_s >= s.config.stages[rollout.stage].max_s:
            return _back(s, f"{wrong}, and does not keep it", "rolled_back")
        return Decision("correct", f"{wrong}: set again")
    return None


def _found_reason(s: Situation, found: str) -> str:
    """With what rules say of it, since whoever died may have acted on that."""
    why = "; ".join(f"{v.rule}: {v.reason}" for v in s.look.verdicts if v.answer == "roll_back")
    return f"{found} ({why})" if why else found


def alive(s: Situation) -> Decision | None:
    """`unready` counts this look too. A canary that fails may lose its weight before it loses its name."""
    target, looks = _target(s), s.rollout.unready
    weight, _ = s.rollout.wanted(s.config)
    if target.ready and target.weight == weight:
        return None
    if looks >= UNREADY_LOOKS:
        reason = f"the canary was ready and is no more ({looks} looks in a row){_because(target.detail)}"
        return _back(s, reason, "rolled_back", numbers={"unready_looks": looks})
    return Decision(
        "wait", f"the canary is not ready ({looks} of {UNREADY_LOOKS} looks){_because(target.detail)}"
    )


def harm(s: Situation) -> Decision | None:
    bad = [verdict for verdict in s.look.verdicts if verdict.answer == "roll_back"]
    if not bad:
        return None
    return _back(s, "; ".join(f"{v.rule}: {v.reason}" for v in bad), "rolled_back", numbers=_numbers(s))


def paused(s: Situation) -> Decision | None:
    return _paused(s) if s.rollout.paused else None


def enough(s: Situation) -> Decision | None:
    """On to the next stage, or to promotion after the last."""
    lacking = _lacking(s)
    if lacking:
        return None
    return _onward(s, f"{_named(s.config, s.rollout.stage)} is passed: {_passed(s)}")


def timed_out(s: Situation) -> Decision | None:
    stage = s.config.stages[s.rollout.stage]
    if s.elapsed_s < stage.max_s:
        return Decision("wait", "; ".join(_lacking(s)), _numbers(s))
    reason = f"no sufficient evidence within {stage.max_s:g} s: {'; '.join(_lacking(s))}"
    if s.config.on_timeout == "roll_back":
        return _back(s, reason, "rolled_back", numbers=_numbers(s))
    if s.config.on_timeout == "pause":
        return Decision("pause", f"{reason}; resume, promote or abort it", _numbers(s))
    return _onward(s, f"{reason}; the plan says to advance all the same")


def _lacking(s: Situation) -> list[str]:
    """What the stage still waits for; empty: it is passed."""
    stage = s.config.stages[s.rollout.stage]
    canary = s.look.evidence.current.canary if s.look.evidence else None
    requests = canary.requests if canary else 0
    lacking = []
    if s.elapsed_s < stage.min_s:
        lacking.append(f"{s.elapsed_s:.0f} of {stage.min_s:g} s")
    if stage.mirror and not s.look.can_mirror:
        return lacking  # a dark launch, of which there is no evidence
    if requests < stage.min_requests:
        lacking.append(f"{requests:,} of {stage.min_requests:,} requests to the canary")
    lacking += [f"{v.rule}: {v.reason}" for v in s.look.verdicts if v.answer == "not_yet"]
    return lacking


def _passed(s: Situation) -> str:
    requests = s.look.evidence.current.canary.requests if s.look.evidence else 0
    judged = sum(verdict.answer == "advance" for verdict in s.look.verdicts)
    return f"{requests:,} requests in {s.elapsed_s:.0f} s, no objection of {judged} rules"


def _onward(s: Situation, reason: str) -> Decision:
    following = s.rollout.stage + 1
    if following == len(s.config.stages):
        return Decision("promote", reason, _numbers(s))
    return Decision("advance", f"{reason}; next: {_named(s.config, following)}", _numbers(s))


# promoting


def aborted_in_time(s: Situation) -> Decision | None:
    """Only by a person, and only while what was stable still is."""
    request, target = s.request, s.look.target
    if request is None or request.what != "abort" or target is None:
        return None
    return None if target.stable in (None, s.rollout.candidate.sha256) else obey(s)


def to_the_end(s: Situation) -> Decision | None:
    """The candidate may be the only healthy copy by now: a promotion is finished, never left halfway."""
    return unfinished(s)


# watching


def restored(s: Situation) -> Decision | None:
    previous, target = s.rollout.previous, _target(s)
    if target.stable == s.rollout.candidate.sha256 or target.stable is None:
        return None
    if previous is not None and target.stable == previous.sha256:
        found = "the previous archive is stable again: put back by hand, or by a controller that died"
        return Decision("fall_back", _found_reason(s, found), ending="rolled_back")
    return Decision("finish", "another archive has become stable; this one is not watched any longer")


def regret(s: Situation) -> Decision | None:
    decision = harm(s)
    if decision is None or s.rollout.previous is not None:
        return decision
    if s.elapsed_s >= s.config.watch_s:
        return Decision("finish", f"promoted in spite of {decision.reason}: nothing was stable before it")
    return Decision("wait", f"{decision.reason}; nothing to fall back to", decision.numbers)


def watched(s: Situation) -> Decision | None:
    if s.elapsed_s < s.config.watch_s:
        return Decision("wait", f"watched for {s.elapsed_s:.0f} of {s.config.watch_s:g} s", _numbers(s))
    requests = s.look.evidence.current.canary.requests if s.look.evidence else 0
    seen = f"{requests:,} requests in {s.elapsed_s:.0f} s"
    return Decision("finish", f"no objection after promotion: {seen}", _numbers(s))


# rolling back


def back_to_the_end(s: Situation) -> Decision | None:
    if s.rollout.pending:
        return Decision("redo", f"traffic has not been moved back yet: {s.rollout.outcome}")
    return Decision("end", s.rollout.outcome, ending=s.rollout.ending or "rolled_back")


STEPPERS: Mapping[Phase, tuple[Stepper, ...]] = {
    "starting": (obey, reach, unfinished, unserved, deployed, first_stage),
    "stage": (obey, reach, found, alive, harm, paused, enough, timed_out),
    "promoting": (aborted_in_time, reach_patiently, to_the_end),
    "watching": (obey, reach_patiently, restored, regret, paused, watched),
    "rolling_back": (back_to_the_end,),
    "promoted": (),
    "rolled_back": (),
    "aborted": (),
}


# words and numbers


def _back(
    s: Situation,
    reason: str,
    ending: Phase,
    request: Request | None = None,
    numbers: Mapping[str, float] | None = None,
) -> Decision:
    """Back to what was stable: by taking the canary out, or after promotion by restoring the previous one."""
    if s.rollout.promoted:
        return Decision("fall_back", reason, numbers or {}, request, "rolled_back")
    return Decision("roll_back", reason, numbers or {}, request, ending)


def _paused(s: Situation) -> Decision:
    return Decision("wait", "paused; `churn rollout resume` goes on", _numbers(s))


def _target(s: Situation) -> TargetState:
    """Only asked after `reach`, which lets nobody pass without one."""
    assert s.look.target is not None
    return s.look.target


def _named(config: RolloutConfig, stage: int) -> str:
    return _split(config.stages[stage].weight, config.stages[stage].mirror)


def _split(weight: int, mirror: bool) -> str:
    return "shadow" if mirror else f"{weight} %"


def _because(detail: str) -> str:
    return f": {detail}" if detail else ""


def _seconds(value: float) -> dict[str, float]:
    return {"seconds": round(value, 3)}


def _numbers(s: Situation) -> dict[str, float]:
    """What was looked at: seconds, requests, and each rule's own numbers under its name."""
    numbers: dict[str, float] = _seconds(s.elapsed_s)
    if s.look.evidence is not None:
        window = s.look.evidence.current
        numbers |= {"canary_requests": window.canary.requests, "stable_requests": window.stable.requests}
    for verdict in s.look.verdicts:
        numbers |= {f"{verdict.rule}.{name}": v for name, v in verdict.numbers.items() if isfinite(v)}
    return numbers

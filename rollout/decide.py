"""Decide: what a rollout does next, as a pure function of its state, an observation and a request.

Each phase has a list of steppers. A stepper returns a Decision, or None to let the next one decide. Safety
comes first in every phase: an abort, then what cannot be reached, then a target that is not as recorded, then
the rules; to advance comes last.
"""

from collections.abc import Mapping

from rollout.answers import answer_request, answer_while_going_back
from rollout.config import RolloutConfig
from rollout.situation import (
    Decision,
    Observation,
    Situation,
    Stepper,
    because,
    go_back,
    harm_of,
    named,
    numbers_of,
    seconds,
    split,
    still_paused,
)
from rollout.state import Phase, Request, Rollout

__all__ = ["Decision", "Observation", "decide"]


def decide(
    config: RolloutConfig, rollout: Rollout, seen: Observation, request: Request | None = None
) -> Decision:
    """The next step of `rollout`; `config` contains its plan. Never raises; when in doubt, `wait`."""
    situation = Situation(config, rollout, seen, request)
    for stepper in STEPPERS[rollout.phase]:
        decision = stepper(situation)
        if decision is not None:
            return decision
    return Decision("wait", "nothing to do")


# target or evidence cannot be reached


def unreachable(s: Situation) -> Decision | None:
    """While target or evidence cannot be reached, the weight stays as it is; after `reach_timeout_s` the
    rollout is taken back. An action that failed counts as unreachable until it has been carried out."""
    rollout, seen, limit = s.rollout, s.seen, s.config.reach_timeout_s
    if rollout.unreached_since is None:
        return None if seen.reached else Decision("unreachable", seen.trouble)
    if s.unreached_s < limit:
        if not seen.reached:
            return Decision("wait", f"out of reach for {s.unreached_s:.0f} of {limit:g} s: {seen.trouble}")
        return None if rollout.pending else _reached(s)
    if seen.target is None:
        return Decision("wait", f"given up; rolls back as soon as the target is reached: {seen.trouble}")
    reason = f"target or evidence were out of reach for {s.unreached_s:.0f} s, longer than {limit:g} s"
    return go_back(s, reason + because(rollout.trouble if rollout.pending else ""), "rolled_back")


def unreachable_after_judgement(s: Situation) -> Decision | None:
    """The same after the last stage: the candidate has been judged and gets all traffic, so it is not taken
    back."""
    rollout, seen = s.rollout, s.seen
    if seen.reached:
        return None if rollout.unreached_since is None or rollout.pending else _reached(s)
    if rollout.unreached_since is None:
        return Decision("unreachable", seen.trouble)
    overdue = s.elapsed_s >= s.config.watch_s + s.config.reach_timeout_s
    if rollout.phase == "watching" and overdue and not rollout.paused:
        return Decision("finish", f"promoted, but it could not be watched to the end: {seen.trouble}")
    return Decision("wait", f"out of reach for {s.unreached_s:.0f} s: {seen.trouble}")


def _reached(s: Situation) -> Decision:
    return Decision("reachable", f"in reach again after {s.unreached_s:.0f} s", seconds(s.unreached_s))


def unfinished(s: Situation) -> Decision | None:
    """An intention is not confirmed, because a controller died or the target is not done: repeat it, for a
    while."""
    if not s.rollout.pending:
        return None
    if s.rollout.phase == "stage" and patience_over(s, s.pending_s, s.config.ready_timeout_s):
        what = split(*s.rollout.wanted(s.config))
        reason = f"{what} could not be set within {s.pending_s:.0f} s"
        return go_back(s, reason + because(s.rollout.trouble), "rolled_back", numbers=seconds(s.pending_s))
    return Decision("redo", f"the last step was not confirmed: done again{because(s.rollout.trouble)}")


def stuck(s: Situation) -> Decision | None:
    """Reported once for an action that is repeated without end: a person has to act."""
    rollout, limit = s.rollout, s.config.reach_timeout_s
    if not rollout.pending or rollout.stuck or s.pending_s < limit:
        return None
    going_on = rollout.phase == "promoting"
    what = "the promotion is" if going_on else "traffic is"
    done = "carried out" if going_on else "moved back"
    remedy = "mend the target, or `churn rollout abort`" if going_on else "mend the target"
    why = because(rollout.trouble or s.seen.trouble)
    return Decision(
        "stuck",
        f"{what} not {done} after {s.pending_s:.0f} s{why}; it is tried again at every look; {remedy}",
    )


def patience_over(s: Situation, waited_s: float, limit_s: float) -> bool:
    """Whether pods that are not ready have had their time.

    While one waits for a node, that is `capacity_timeout_s`. After it got one, it may take
    `ready_timeout_s` to start, unless something of it has failed; both together bound pods that are
    replaced without end.
    """
    target, config = s.seen.target, s.config
    if target is None or waited_s < limit_s:
        return False
    if waited_s >= config.capacity_timeout_s + config.ready_timeout_s:
        return True
    if target.needs_node:
        return waited_s >= max(config.capacity_timeout_s, limit_s)
    if target.starting_since is None:
        return True
    starting_s = (s.seen.at - target.starting_since).total_seconds()
    return starting_s >= config.ready_timeout_s


# starting


def stable_already(s: Situation) -> Decision | None:
    if s.target.stable == s.rollout.candidate.sha256:
        return Decision("end", "it is stable already; there is nothing to roll out", ending="aborted")
    return None


def deployed(s: Situation) -> Decision | None:
    rollout, target = s.rollout, s.target
    if not rollout.deployed:
        return Decision("deploy", f"canary {rollout.candidate.version} is brought up at weight 0")
    if target.canary == rollout.candidate.sha256 and target.ready:
        return None
    if patience_over(s, s.elapsed_s, s.config.ready_timeout_s):
        reason = f"the canary was not ready within {s.elapsed_s:.0f} s{because(target.detail)}"
        return go_back(s, reason, "rolled_back", numbers=seconds(s.elapsed_s))
    what = "waits for a node" if target.needs_node else "is not ready yet"
    return Decision("wait", f"the canary {what} ({s.elapsed_s:.0f} s){because(target.detail)}")


def first_stage(s: Situation) -> Decision:
    reason = f"the canary is ready; first stage: {named(s.config, 0)}"
    return still_paused(s) or Decision("advance", reason, seconds(s.elapsed_s))


# a stage


def target_differs(s: Situation) -> Decision | None:
    """The target is not as recorded: a controller died during an action, or something else has changed it."""
    rollout, target = s.rollout, s.target
    weight, mirror = rollout.wanted(s.config)
    if target.canary != rollout.candidate.sha256:
        if target.stable == rollout.candidate.sha256:
            return Decision("promote", "found promoted at the target, not by this rollout")
        what = "no canary" if target.canary is None else "another canary"
        return go_back(s, _found(s, f"the target has {what}: taken back by hand, or by a controller"
                                    " that died before it could record it"), "rolled_back")  # fmt: skip
    if rollout.pending:  # the canary has its earlier weight meanwhile, and is judged
        return harm_of(s) or unfinished(s)
    intended = target.weight if target.intended is None else target.intended
    if intended == 0 < weight:
        return go_back(s, _found(s, f"the target gives the canary 0 % instead of {weight} %: taken back"
                                    " by hand, or by a controller that died before it could record it"),
                       "rolled_back")  # fmt: skip
    mirrors = target.mirror == mirror or not s.seen.can_mirror
    if intended != weight or target.weight > weight or not mirrors:
        has, wanted = split(target.weight, target.mirror), split(weight, mirror)
        wrong = f"the target has {has} where {wanted} was decided"
        if s.elapsed_s >= s.config.stages[rollout.stage].max_s:
            return go_back(s, f"{wrong}, and does not keep it", "rolled_back")
        return Decision("correct", f"{wrong}: set again")
    return None


def _found(s: Situation, found: str) -> str:
    """With the verdicts of the rules, on which a controller that died may have acted."""
    why = "; ".join(f"{v.rule}: {v.reason}" for v in s.seen.verdicts if v.answer == "roll_back")
    return f"{found} ({why})" if why else found


def canary_unready(s: Situation) -> Decision | None:
    """A canary that fails may lose its weight before the target reports it as unready. A pod that moves to
    another node is unready for a while without harm, because it gets no traffic meanwhile."""
    target, limit, since = s.target, s.config.unready_timeout_s, s.rollout.unready_since
    weight, _ = s.rollout.wanted(s.config)
    if target.ready and target.weight == weight:
        return None
    unready_s = 0.0 if since is None else (s.seen.at - since).total_seconds()
    if patience_over(s, unready_s, limit):
        reason = f"the canary was ready and has not been for {unready_s:.0f} s{because(target.detail)}"
        return go_back(s, reason, "rolled_back", numbers={"unready_seconds": unready_s})
    what = "waits for a node" if target.needs_node else "is not ready"
    return Decision("wait", f"the canary {what} ({unready_s:.0f} s){because(target.detail)}")


def enough(s: Situation) -> Decision | None:
    """To the next stage, or to promotion after the last one."""
    lacking = _lacking(s)
    if lacking:
        return None
    return _onward(s, f"{named(s.config, s.rollout.stage)} is passed: {_passed(s)}")


def timed_out(s: Situation) -> Decision | None:
    stage = s.config.stages[s.rollout.stage]
    if s.elapsed_s < stage.max_s:
        return Decision("wait", "; ".join(_lacking(s)), numbers_of(s))
    reason = f"no sufficient evidence within {stage.max_s:g} s: {'; '.join(_lacking(s))}"
    if s.config.on_timeout == "roll_back":
        return go_back(s, reason, "rolled_back", numbers=numbers_of(s))
    if s.config.on_timeout == "pause":
        return Decision("pause", f"{reason}; resume, promote or abort it", numbers_of(s))
    return _onward(s, f"{reason}; the plan says to advance all the same")


def _lacking(s: Situation) -> list[str]:
    """What the stage still needs; empty: it is passed."""
    stage = s.config.stages[s.rollout.stage]
    canary = s.seen.evidence.current.canary if s.seen.evidence else None
    requests = canary.requests if canary else 0
    lacking = []
    if s.elapsed_s < stage.min_s:
        lacking.append(f"{s.elapsed_s:.0f} of {stage.min_s:g} s")
    if stage.mirror and not s.seen.can_mirror:
        return lacking  # a dark launch, which gives no evidence
    if requests < stage.min_requests:
        lacking.append(f"{requests:,} of {stage.min_requests:,} requests to the canary")
    lacking += [f"{v.rule}: {v.reason}" for v in s.seen.verdicts if v.answer == "not_yet"]
    return lacking


def _passed(s: Situation) -> str:
    requests = s.seen.evidence.current.canary.requests if s.seen.evidence else 0
    judged = sum(verdict.answer == "advance" for verdict in s.seen.verdicts)
    return f"{requests:,} requests in {s.elapsed_s:.0f} s, no objection of {judged} rules"


def _onward(s: Situation, reason: str) -> Decision:
    following = s.rollout.stage + 1
    if following == len(s.config.stages):
        return Decision("promote", reason, numbers_of(s))
    return Decision("advance", f"{reason}; next: {named(s.config, following)}", numbers_of(s))


# promoting


def harm_before_promoted(s: Situation) -> Decision | None:
    """As long as the former stable archive is stable, all traffic can return to it. Once the candidate is
    stable, the promotion is finished first, and the watch judges it."""
    return None if s.candidate_is_stable else harm_of(s)


# watching


def restored(s: Situation) -> Decision | None:
    previous, target = s.rollout.previous, s.target
    if target.stable == s.rollout.candidate.sha256 or target.stable is None:
        return None
    if previous is not None and target.stable == previous.sha256:
        found = "the previous archive is stable again: put back by hand, or by a controller that died"
        return Decision("fall_back", _found(s, found), ending="rolled_back")
    return Decision("finish", "another archive has become stable; this one is not watched any longer")


def harm_after_promotion(s: Situation) -> Decision | None:
    decision = harm_of(s)
    if decision is None or s.rollout.previous is not None:
        return decision
    if s.elapsed_s >= s.config.watch_s:
        return Decision("finish", f"promoted in spite of {decision.reason}: nothing was stable before it")
    return Decision("wait", f"{decision.reason}; nothing to fall back to", decision.numbers)


def watched(s: Situation) -> Decision | None:
    if s.elapsed_s < s.config.watch_s:
        return Decision("wait", f"watched for {s.elapsed_s:.0f} of {s.config.watch_s:g} s", numbers_of(s))
    requests = s.seen.evidence.current.canary.requests if s.seen.evidence else 0
    seen = f"{requests:,} requests in {s.elapsed_s:.0f} s"
    return Decision("finish", f"no objection after promotion: {seen}", numbers_of(s))


# rolling back


def back_to_the_end(s: Situation) -> Decision | None:
    if s.rollout.pending:
        why = because(s.rollout.trouble)
        return Decision("redo", f"traffic has not been moved back yet: {s.rollout.outcome}{why}")
    return Decision("end", s.rollout.outcome, ending=s.rollout.ending or "rolled_back")


STEPPERS: Mapping[Phase, tuple[Stepper, ...]] = {
    "starting": (answer_request, unreachable, unfinished, stable_already, deployed, first_stage),
    "stage": (
        answer_request, unreachable, target_differs, canary_unready, harm_of, still_paused, enough, timed_out,
    ),
    "promoting": (answer_request, harm_before_promoted, stuck, unreachable_after_judgement, unfinished),
    "watching": (
        answer_request, unreachable_after_judgement, restored, harm_after_promotion, still_paused, watched,
    ),
    "rolling_back": (answer_while_going_back, stuck, back_to_the_end),
    "promoted": (),
    "rolled_back": (),
    "aborted": (),
}  # fmt: skip

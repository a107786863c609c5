"""How requests of people are answered in each phase.

Every request is answered at the next tick. An abort comes before all others that wait
(rollout/database/requests.py). A request that cannot be carried out now is refused at once, so that it has no
effect at an unexpected later time.
"""

from rollout.situation import Decision, Situation, because, go_back, numbers_of
from rollout.state import Request


def answer_request(s: Situation) -> Decision | None:
    """An abort is accepted also where the target cannot be reached: the roll-back then waits for the
    target."""
    request = s.request
    if request is None:
        return None
    refused = _refusal(s, request)
    if refused:
        return Decision("refuse", f"{request.what}: {refused}", answers=request)
    if request.what == "abort":
        return go_back(s, request.why, "aborted", request)
    if request.what == "promote":
        return _skip(s, request)
    return Decision(request.what, request.why, answers=request)


def answer_while_going_back(s: Situation) -> Decision | None:
    """An abort is being carried out already: the end of the rollout answers it. All others are refused."""
    request = s.request
    if request is None or request.what == "abort":
        return None
    return Decision("refuse", f"{request.what}: traffic is being moved back", answers=request)


def _refusal(s: Situation, request: Request) -> str:
    rollout = s.rollout
    if request.what == "abort":
        return _no_way_back(s)
    if rollout.phase == "promoting":
        return "it is being promoted; only an abort is possible now"
    if request.what == "pause" and rollout.paused:
        return "it is paused already"
    if request.what == "resume" and not rollout.paused:
        return "it is not paused"
    if request.what == "promote":
        return _cannot_promote(s)
    return ""


def _no_way_back(s: Situation) -> str:
    if s.rollout.previous is not None:
        return ""
    if s.candidate_is_stable:
        return "nothing was stable before it; deploy another archive"
    if s.rollout.phase == "promoting" and s.seen.target is None:
        return (
            "nothing was stable before it, and the progress of the promotion cannot be read from the target"
        )
    return ""


def _cannot_promote(s: Situation) -> str:
    target = s.seen.target
    if s.rollout.promoted:
        return "it is promoted already"
    if target is None:
        return f"the target cannot be reached{because(s.seen.trouble)}; ask again when it can"
    if not (target.ready and target.canary == s.rollout.candidate.sha256):
        return f"the canary is not ready{because(target.detail)}"
    return ""


def _skip(s: Situation, request: Request) -> Decision:
    weights = [stage.weight for stage in s.config.stages[s.rollout.stage + 1 :]]
    skipped = f" (skips the stages of {', '.join(map(str, weights))} %)" if weights else ""
    return Decision("promote", request.why + skipped, numbers_of(s), answers=request)

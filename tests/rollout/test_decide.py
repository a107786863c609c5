"""What a rollout does next, case by case, from plain data."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rollout.aftermath import after_promotion
from rollout.config import RolloutConfig
from rollout.decide import Decision, Observation, decide
from rollout.evidence import Arm, Evidence, Window
from rollout.rules.rule import Answer, Verdict
from rollout.state import Request, RequestKind, Rollout, plan_of
from rollout.targets.target import Candidate, TargetState

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEW, OLD = Candidate("/new.mar", "n" * 64, "aaaaaaaaaaaa"), Candidate("/old.mar", "o" * 64, "bbbbbbbbbbbb")
CONFIG = RolloutConfig.model_validate(
    {
        "stages": [
            {"weight": 0, "mirror": True, "min_s": 10, "max_s": 100, "min_requests": 50},
            {"weight": 5, "min_s": 10, "max_s": 100, "min_requests": 50},
            {"weight": 100, "min_s": 10, "max_s": 100},
        ],
        "ready_timeout_s": 30,
        "reach_timeout_s": 20,
        "watch_s": 60,
    }
)


def at(phase: str = "stage", stage: int = 1, **more: object) -> Rollout:
    """A rollout in the middle; by default at 5 %, begun at noon."""
    plain = Rollout(
        id="r",
        model="churn",
        candidate=NEW,
        previous=OLD,
        phase="stage",
        stage=stage,
        paused=False,
        windows=(),
        started=NOON,
        by="ada",
        reason="new data",
        plan=plan_of(CONFIG),
        since=NOON,
        sequence=5,
        deployed=True,
    )
    return replace(plain, **{"phase": phase, **more})  # type: ignore[arg-type]


def target(weight: int = 5, **more: object) -> TargetState:
    plain = TargetState(weight=weight, mirror=False, canary=NEW.sha256, stable=OLD.sha256, ready=True)
    return replace(plain, **more)  # type: ignore[arg-type]


def look(
    seconds: float = 20,
    seen: TargetState | None = None,
    requests: int = 100,
    answers: tuple[Answer, ...] = ("advance",),
    **more: object,
) -> Observation:
    evidence = Evidence((Window(5, canary=Arm(requests=requests), stable=Arm(requests=1900)),))
    verdicts = tuple(
        Verdict(f"rule{number}", answer, f"answers {answer}", {"rate": 0.5})
        for number, answer in enumerate(answers)
    )
    plain = Observation(NOON + timedelta(seconds=seconds), seen or target(), evidence, verdicts)
    return replace(plain, **more)  # type: ignore[arg-type]


def request(what: RequestKind) -> Request:
    return Request(1, NOON, what, "ada", "because")


def after(rollout: Rollout, seen: Observation, request: Request | None = None) -> Decision:
    decision = decide(CONFIG, rollout, seen, request)
    assert decision.reason, decision
    return decision


# a stage


def test_a_stage_that_is_passed_advances_with_its_numbers() -> None:
    decision = after(at(), look())
    assert decision.action == "advance"
    assert "5 % is passed: 100 requests in 20 s" in decision.reason and "next: 100 %" in decision.reason
    assert decision.numbers["canary_requests"] == 100 and decision.numbers["rule0.rate"] == 0.5


@pytest.mark.parametrize(
    ("seen", "awaited"),
    [
        (look(seconds=9), "9 of 10 s"),
        (look(requests=49), "49 of 50 requests"),
        (look(answers=("advance", "not_yet")), "rule1: answers not_yet"),
    ],
)
def test_a_stage_waits_for_what_it_lacks(seen: Observation, awaited: str) -> None:
    decision = after(at(), seen)
    assert decision.action == "wait" and awaited in decision.reason


def test_the_last_stage_leads_to_promotion() -> None:
    assert after(at(stage=2), look(seen=target(100))).action == "promote"


def test_one_rule_that_answers_so_rolls_back_whatever_the_others_answer() -> None:
    decision = after(at(), look(answers=("advance", "roll_back", "not_yet")))
    assert (decision.action, decision.ending) == ("roll_back", "rolled_back")
    assert decision.reason == "rule1: answers roll_back"


def test_harm_is_not_waited_for_until_the_stage_is_old_enough() -> None:
    assert after(at(), look(seconds=0.1, requests=1, answers=("roll_back",))).action == "roll_back"


@pytest.mark.parametrize(
    ("plan", "action"), [("roll_back", "roll_back"), ("pause", "pause"), ("advance", "advance")]
)
def test_a_stage_without_enough_evidence_does_what_the_plan_states_at_its_end(plan: str, action: str) -> None:
    config = CONFIG.model_copy(update={"on_timeout": plan})
    lacking = look(seconds=100, requests=3)
    decision = decide(config, at(), lacking)
    assert decision.action == action
    assert "no sufficient evidence within 100 s: 3 of 50 requests" in decision.reason
    assert decide(config, at(), look(seconds=99, requests=3)).action == "wait"


def test_a_shadow_stage_of_a_target_that_cannot_mirror_is_over_after_its_time() -> None:
    dark = look(seconds=10, seen=target(0), requests=0, answers=("not_yet",), can_mirror=False)
    assert after(at(stage=0), dark).action == "advance"
    assert after(at(stage=0), replace(dark, at=NOON + timedelta(seconds=9))).action == "wait"


# a target that is not as recorded


def test_a_canary_that_is_gone_is_a_roll_back_to_finish_with_the_verdicts_on_it() -> None:
    decision = after(at(), look(seen=target(0, canary=None, ready=False), answers=("roll_back",)))
    assert decision.action == "roll_back"
    assert "the target has no canary" in decision.reason and "rule0: answers roll_back" in decision.reason


def test_a_canary_without_its_weight_is_a_roll_back_to_finish() -> None:
    assert after(at(), look(seen=target(0))).action == "roll_back"
    assert after(at(), look(seen=target(0, intended=0))).action == "roll_back"


def test_a_canary_that_lost_its_weight_by_failing_is_given_some_seconds() -> None:
    failed = look(seen=target(0, intended=5, ready=False))
    assert after(at(unready_since=NOON + timedelta(seconds=19)), failed).action == "wait"
    assert after(at(unready_since=NOON + timedelta(seconds=5)), failed).action == "roll_back"


@pytest.mark.parametrize("weight", [3, 50])
def test_a_weight_that_was_not_decided_is_corrected(weight: int) -> None:
    decision = after(at(), look(seen=target(weight)))
    assert decision.action == "correct" and f"{weight} % where 5 %" in decision.reason


def test_a_target_that_never_retains_its_weight_is_rolled_back_in_the_end() -> None:
    assert after(at(), look(seconds=100, seen=target(50))).action == "roll_back"


def test_another_canary_is_taken_out() -> None:
    assert "another canary" in after(at(), look(seen=target(canary="x" * 64))).reason


def test_a_promotion_by_hand_is_followed() -> None:
    by_hand = target(0, canary=None, stable=NEW.sha256)
    assert after(at(), look(seen=by_hand)).action == "promote"


def test_an_intention_that_was_not_confirmed_is_carried_out() -> None:
    assert after(at(pending=5), look(seen=target(0, mirror=True))).action == "redo"


# readiness


def test_a_candidate_is_deployed_first() -> None:
    fresh = look(seen=target(0, canary=None, ready=False))
    assert after(at("starting", deployed=False), fresh).action == "deploy"


def test_a_canary_that_is_not_ready_in_time_is_rolled_back_with_the_targets_word() -> None:
    unready = target(0, ready=False, detail="ImagePullBackOff")
    assert after(at("starting"), look(seconds=29, seen=unready)).action == "wait"
    decision = after(at("starting"), look(seconds=30, seen=unready))
    assert decision.action == "roll_back" and "not ready within 30 s: ImagePullBackOff" in decision.reason


def test_a_ready_canary_begins_with_the_first_stage() -> None:
    decision = after(at("starting"), look(seen=target(0)))
    assert decision.action == "advance" and "first stage: shadow" in decision.reason


def test_what_is_stable_already_is_not_rolled_out() -> None:
    decision = after(at("starting"), look(seen=target(0, canary=None, stable=NEW.sha256)))
    assert (decision.action, decision.ending) == ("end", "aborted")


def test_a_canary_that_dies_is_rolled_back_after_seconds_not_looks_and_never_advances_before() -> None:
    dead = look(seen=target(5, ready=False, detail="process 7 ended"))
    assert after(at(unready_since=NOON + timedelta(seconds=6)), dead).action == "wait"
    decision = after(at(unready_since=NOON + timedelta(seconds=5)), dead)
    assert decision.action == "roll_back" and "for 15 s: process 7 ended" in decision.reason


# out of reach


def test_while_unreachable_the_weight_stays_and_it_waits() -> None:
    lost = look(target=None, trouble="target file: refused")
    assert after(at(), lost).action == "unreachable"
    since = at(unreached_since=NOON)
    assert after(since, replace(lost, at=NOON + timedelta(seconds=19))).action == "wait"


def test_nothing_advances_without_fresh_evidence() -> None:
    blind = look(evidence=None, verdicts=(), trouble="evidence: stale")
    assert after(at(), blind).action == "unreachable"
    assert after(at(unreached_since=NOON), replace(blind, at=NOON + timedelta(seconds=5))).action == "wait"


def test_reachable_again_in_time_continues() -> None:
    assert after(at(unreached_since=NOON), look(seconds=19)).action == "reachable"


def test_too_long_out_of_reach_is_rolled_back_as_soon_as_the_target_is_there() -> None:
    given_up = at(unreached_since=NOON)
    still = after(given_up, look(seconds=25, target=None, trouble="no route"))
    assert still.action == "wait" and "given up" in still.reason
    assert after(given_up, look(seconds=25)).action == "roll_back"
    assert after(given_up, look(seconds=25, evidence=None, trouble="no log")).action == "roll_back"


def test_an_action_that_failed_is_tried_again_until_the_time_is_up() -> None:
    failed = at(unreached_since=NOON, pending=5)
    assert after(failed, look(seconds=19, seen=target(0, mirror=True))).action == "redo"
    assert after(failed, look(seconds=21, seen=target(0, mirror=True))).action == "roll_back"


# what people ask


def test_during_a_pause_the_weight_stays_but_harm_is_still_taken_back() -> None:
    assert after(at(), look(), request("pause")).action == "pause"
    assert after(at(paused=True), look()).action == "wait"
    assert after(at(paused=True), look(seconds=1000)).action == "wait"
    assert after(at(paused=True), look(answers=("roll_back",))).action == "roll_back"


def test_resume_only_of_what_is_paused() -> None:
    assert after(at(paused=True), look(), request("resume")).action == "resume"
    refused = after(at(), look(), request("resume"))
    assert refused.action == "refuse" and refused.answers is not None


def test_promote_skips_the_rest_and_records_who_and_what() -> None:
    decision = after(at(stage=1), look(requests=0), request("promote"))
    assert decision.action == "promote" and decision.reason == "ada: because (skips the stages of 100 %)"


def test_a_canary_that_is_not_ready_cannot_be_promoted() -> None:
    dead = look(seen=target(5, ready=False, detail="loading"))
    refused = after(at(), dead, request("promote"))
    assert refused.action == "refuse" and "not ready: loading" in refused.reason


def test_abort_rolls_back_at_once_even_where_nothing_can_be_reached() -> None:
    for seen in (look(), look(target=None, trouble="x"), look(answers=("roll_back",))):
        decision = after(at(), seen, request("abort"))
        assert (decision.action, decision.ending) == ("roll_back", "aborted")
        assert decision.reason == "ada: because"


# promotion and after


def test_a_promotion_is_finished_whatever_rules_answer_now() -> None:
    seen = look(19, answers=("roll_back",), seen=target(0, canary=None, stable=NEW.sha256))
    assert after(at("promoting", 2, pending=6), seen).action == "redo"


def test_a_promotion_that_stable_has_not_made_room_for_is_still_judged() -> None:
    decision = after(at("promoting", 2, pending=6), look(answers=("roll_back",), seen=target(100)))
    assert (decision.action, decision.reason) == ("roll_back", "rule0: answers roll_back")


def test_a_promotion_can_be_aborted_at_every_moment() -> None:
    promoting = at("promoting", 2, pending=6)
    assert after(promoting, look(), request("abort")).action == "roll_back"
    done = look(seen=target(0, canary=None, stable=NEW.sha256))
    assert after(promoting, done, request("abort")).action == "fall_back"
    assert after(promoting, look(target=None, trouble="x"), request("abort")).action == "roll_back"
    first = at("promoting", 2, pending=6, previous=None)
    assert "nothing was stable before it" in after(first, done, request("abort")).reason


@pytest.mark.parametrize("what", ["pause", "resume", "promote"])
@pytest.mark.parametrize("phase", ["promoting", "rolling_back"])
def test_what_cannot_be_done_now_is_refused_and_holds_nothing_up(what: RequestKind, phase: str) -> None:
    decision = after(at(phase, 2, pending=6), look(), request(what))
    assert decision.action == "refuse" and decision.answers is not None


def test_a_promotion_requested_while_the_target_is_unreachable_is_refused_not_saved_for_later() -> None:
    refused = after(at(), look(target=None, trouble="no route"), request("promote"))
    assert refused.action == "refuse" and "cannot be reached: no route; ask again" in refused.reason


def test_what_is_tried_for_long_without_success_is_reported_once() -> None:
    promoting = at("promoting", 2, pending=6, trouble="target standard: no quota")
    decision = after(promoting, look(20, seen=target(100)))
    assert decision.action == "stuck" and "no quota" in decision.reason
    assert after(replace(promoting, stuck=True), look(40, seen=target(100))).action == "redo"
    back = at("rolling_back", pending=6, outcome="it errs", trouble="refused")
    assert after(back, look(20)).action == "stuck"
    assert after(replace(back, stuck=True), look(40)).action == "redo"


PROMOTED = target(0, canary=None, stable=NEW.sha256, ready=False)


def test_a_promoted_model_is_watched_and_then_final() -> None:
    watching = at("watching", 2, promoted=True)
    assert after(watching, look(seconds=59, seen=PROMOTED)).action == "wait"
    assert after(watching, look(seconds=60, seen=PROMOTED)).action == "finish"


def test_a_promoted_model_that_harms_falls_back() -> None:
    decision = after(at("watching", 2, promoted=True), look(seen=PROMOTED, answers=("roll_back",)))
    assert (decision.action, decision.ending) == ("fall_back", "rolled_back")


def test_without_a_previous_model_harm_is_reported_and_nothing_is_moved() -> None:
    first = at("watching", 2, promoted=True, previous=None)
    harmed = look(seen=PROMOTED, answers=("roll_back",))
    assert "nothing to fall back to" in after(first, harmed).reason
    assert after(first, harmed).action == "wait"
    assert after(first, replace(harmed, at=NOON + timedelta(seconds=60))).action == "finish"
    assert after(first, harmed, request("abort")).action == "refuse"


def test_a_fall_back_that_died_halfway_is_finished() -> None:
    assert after(at("watching", 2, promoted=True), look(seen=target(0, canary=None))).action == "fall_back"


def test_losing_sight_after_promotion_takes_nothing_back() -> None:
    blind = look(evidence=None, verdicts=(), trouble="no log", seen=PROMOTED)
    watching = at("watching", 2, promoted=True, unreached_since=NOON)
    assert after(watching, replace(blind, at=NOON + timedelta(seconds=70))).action == "wait"
    end = after(watching, replace(blind, at=NOON + timedelta(seconds=80)))
    assert end.action == "finish" and "could not be watched" in end.reason


def test_after_promotion_the_candidate_is_alone_under_both_names() -> None:
    shadow = Window(0, mirror=True, stable=Arm(requests=100, errors=1), canary=Arm(requests=100))
    split = Window(50, stable=Arm(requests=50, errors=1), canary=Arm(requests=50))
    full = Window(100, canary=Arm(requests=80))
    watch = Window(100, stable=Arm(requests=70, errors=7), canary=Arm(requests=5))
    evidence = after_promotion(Evidence((shadow, split, full, watch)))
    assert evidence.windows[:3] == (shadow, split, full)
    assert evidence.current.stable.requests == 0, "stable's past is in its own windows, and nowhere else"
    assert evidence.current.canary.requests == 75 and evidence.current.canary.errors == 7


# going back


def test_traffic_that_could_not_be_moved_back_is_tried_until_it_is() -> None:
    back = at("rolling_back", pending=6, outcome="it errs", ending="rolled_back", stuck=True)
    assert after(back, look(seconds=1000)).action == "redo"
    assert after(replace(back, pending=0), look()).action == "end"


# pods that wait for a node, or start

NO_NODE = {"ready": False, "needs_node": True, "detail": "Unschedulable: Insufficient cpu"}


@pytest.mark.parametrize(("waited", "action"), [(31, "wait"), (899, "wait"), (900, "roll_back")])
def test_a_canary_waits_for_a_node_longer_than_to_be_ready(waited: float, action: str) -> None:
    decision = after(at("starting"), look(seconds=waited, seen=target(0, **NO_NODE)))
    assert decision.action == action
    if action == "wait":
        assert "waits for a node" in decision.reason and "Insufficient cpu" in decision.reason


def test_more_pods_that_wait_for_a_node_leave_the_weight_and_the_rules_at_work() -> None:
    waiting = at(pending=6, trouble="pods of the canary")
    short = target(needs_node=True)
    assert after(waiting, look(seconds=300, seen=short)).action == "redo"
    assert after(waiting, look(seconds=300, seen=short, answers=("roll_back",))).action == "roll_back"
    assert after(waiting, look(seconds=300)).action == "roll_back", "without a pod that waits it takes 30 s"


def test_a_pod_that_has_its_node_gets_the_time_to_start() -> None:
    def starting(since: float) -> TargetState:
        at_node = NOON + timedelta(seconds=since)
        return target(0, ready=False, detail="it is starting", starting_since=at_node)

    assert after(at("starting"), look(seconds=329, seen=starting(300))).action == "wait"
    assert after(at("starting"), look(seconds=330, seen=starting(300))).action == "roll_back"
    # pods that are replaced again and again end it too
    assert after(at("starting"), look(seconds=931, seen=starting(930))).action == "roll_back"


def test_a_canary_whose_pod_was_deleted_is_given_the_time_of_a_new_one() -> None:
    unready = at(unready_since=NOON)
    fresh = target(0, ready=False, intended=5, starting_since=NOON + timedelta(seconds=2))
    assert after(unready, look(seconds=25, seen=fresh)).action == "wait"
    assert after(unready, look(seconds=32, seen=fresh)).action == "roll_back"
    failing = target(0, ready=False, intended=5, detail="CrashLoopBackOff")
    assert after(unready, look(seconds=25, seen=failing)).action == "roll_back"

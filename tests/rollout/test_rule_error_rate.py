"""Errors of the canary: taken back when certain, never for want of data."""

import math

import numpy as np
import pytest

from rollout.aftermath import after_promotion
from rollout.evidence import Arm, Evidence, Window
from rollout.rules.blocks import before_after
from rollout.rules.error_rate import ErrorRate, ErrorRateRule, dealt
from support.rollout_evidence import arm, seen, then, timed

RULE = ErrorRateRule(ErrorRate(tolerance=0.0))
ALPHA = 0.01


def test_an_identical_canary_may_go_on() -> None:
    verdict = RULE.judge(seen(arm(9900, errors=99), arm(1000, errors=10)), ALPHA)
    assert verdict.answer == "advance"
    assert verdict.reason == "errors 1.00% of 1000 on the canary, 1.00% on stable"
    assert verdict.numbers["e_value"] < 1


def test_three_times_the_errors_are_taken_back_with_the_numbers() -> None:
    verdict = RULE.judge(seen(arm(99_000, errors=990), arm(1000, errors=30), weight=1), ALPHA)
    assert verdict.answer == "roll_back"
    assert "3.00% of 1000 on the canary, 1.00% on stable: evidence" in verdict.reason
    assert "to 1, 100 needed" in verdict.reason
    assert verdict.numbers["e_value"] >= verdict.numbers["needed"] == 100


def test_the_same_evidence_is_not_enough_for_a_smaller_alpha() -> None:
    evidence = seen(arm(99_000, errors=990), arm(500, errors=16), weight=1)
    assert RULE.judge(evidence, 0.01).answer == "roll_back"
    assert RULE.judge(evidence, 1e-6).answer == "advance"


def test_what_the_tolerance_allows_is_no_harm() -> None:
    evidence = seen(arm(99_000, errors=990), arm(1000, errors=30), weight=1)
    assert ErrorRateRule(ErrorRate(tolerance=0.03)).judge(evidence, ALPHA).answer == "advance"


def test_a_dead_canary_is_taken_back_after_a_handful() -> None:
    assert RULE.judge(seen(arm(990), arm(10, errors=10), weight=1), ALPHA).answer == "roll_back"


def test_evidence_adds_up_over_stages() -> None:
    shadow = seen(arm(500, errors=5), arm(500, errors=14), weight=0, mirror=True)
    first = seen(arm(19_800, errors=198), arm(200, errors=7), weight=1)
    second = seen(arm(3800, errors=38), arm(200, errors=6), weight=5)
    assert [RULE.judge(one, ALPHA).answer for one in (shadow, first, second)] == ["advance"] * 3
    assert RULE.judge(then(shadow, first, second), ALPHA).answer == "roll_back"


def test_an_outage_of_both_variants_is_not_laid_to_the_canary() -> None:
    assert RULE.judge(seen(arm(1000, errors=600), arm(1000, errors=610)), ALPHA).answer == "advance"


def test_no_requests_yet_is_not_yet() -> None:
    nothing = RULE.judge(Evidence(), ALPHA)
    assert nothing.answer == "not_yet"
    earlier = seen(arm(9900, errors=99), arm(1000, errors=10))
    fresh = then(earlier, Evidence((Window(5),)))
    assert RULE.judge(fresh, ALPHA).answer == "not_yet"
    assert "0 in this stage" in RULE.judge(fresh, ALPHA).reason
    assert RULE.judge(seen(Arm(), arm(100)), ALPHA).answer == "not_yet"


def test_harm_of_an_earlier_stage_is_not_forgotten_in_a_new_one() -> None:
    harmed = then(seen(arm(9900, errors=99), arm(1000, errors=60)), Evidence((Window(5),)))
    assert RULE.judge(harmed, ALPHA).answer == "roll_back"


def test_alone_at_weight_100_it_is_compared_with_the_stable_of_before() -> None:
    before = seen(failing(9000, 0.01), failing(1000, 0.01), weight=10)
    good = then(before, seen(Arm(), failing(2000, 0.01), weight=100))
    bad = then(before, seen(Arm(), failing(2000, 0.08), weight=100))
    assert RULE.judge(good, ALPHA).answer == "advance"
    assert RULE.judge(bad, ALPHA).answer == "roll_back"
    assert RULE.judge(seen(Arm(), failing(2000, 0.01), weight=100), ALPHA).answer == "not_yet"


def failing(requests: int, rate: float) -> Arm:
    errors = np.random.default_rng(requests).random(requests) < rate
    return timed(np.full(requests, 5.0), errors=errors)


def test_a_client_that_retries_a_hundred_times_is_one_event() -> None:
    """One customer of the canary fails on every request, as she would on stable, and her client retries."""
    retried = seen(arm(9900, failing=0), arm(100, errors=60, failing=1), weight=1)
    assert RULE.judge(retried, ALPHA).answer == "advance"
    by_request = seen(arm(9900), arm(100, errors=60), weight=1)
    assert RULE.judge(by_request, ALPHA).answer == "roll_back"
    many = seen(arm(9900, failing=0), arm(100, errors=60, failing=12), weight=1)
    assert RULE.judge(many, ALPHA).answer == "roll_back"


def test_failing_customers_are_expected_by_the_weight_and_not_by_their_requests() -> None:
    """The canary's few customers ask a hundred times each: of requests it has 90 %, of customers a tenth."""
    one = Window(10, stable=arm(1000, errors=9, failing=9), canary=arm(9000, errors=900, failing=9))
    counts = dealt(one)
    assert (counts.canary, counts.stable) == (1000, 9000)
    assert RULE.judge(Evidence((one,)), ALPHA).answer == "roll_back"


def test_errors_that_both_variants_make_in_the_shadow_hide_none_that_come_later() -> None:
    shadow = seen(arm(500, errors=300), arm(500, errors=300), weight=0, mirror=True)
    later = seen(arm(99_000, errors=990), arm(1000, errors=40), weight=1)
    assert RULE.judge(then(shadow, later), ALPHA).answer == "roll_back"


def test_what_stable_did_before_is_used_once_after_promotion() -> None:
    """Side by side nothing was wrong; the watch is compared with before by a tenth of the evidence alone."""
    before = seen(failing(9000, 0.01), failing(1000, 0.01), weight=10)
    watch = Window(100, stable=failing(900, 0.03), canary=failing(50, 0.03))
    judged = after_promotion(Evidence((*before.windows, watch)))
    assert judged.current.canary.requests == 950 and judged.current.stable.requests == 0
    split = RULE.judge(before, ALPHA).numbers["e_value"]
    after = RULE.judge(judged, ALPHA).numbers["e_value"]
    alone = before_after(judged, lambda one: one.blocks.failed(), 0.0)
    assert after == pytest.approx(split - 0.1 + 0.1 * np.exp(alone))


@pytest.mark.parametrize(
    "damaged",
    [
        arm(100, errors=101),
        arm(100, errors=-1),
        arm(100, errors=math.nan),
        Arm(requests=math.nan),  # type: ignore[arg-type]
    ],
)
def test_damaged_counts_are_never_a_yes(damaged: Arm) -> None:
    for evidence in (
        seen(arm(), damaged),
        seen(damaged, arm()),
        then(seen(damaged, arm()), seen(arm(), arm())),
    ):
        verdict = RULE.judge(evidence, ALPHA)
        assert verdict.answer == "not_yet"
        assert "damaged" in verdict.reason

"""Errors of the canary: taken back when certain, never for want of data."""

import math

import pytest
from rollout_evidence import arm, seen, then

from rollout.config import ErrorRate
from rollout.evidence import Arm, Evidence, Window
from rollout.rules.error_rate import ErrorRateRule

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
    before = seen(arm(9000, errors=90), arm(1000, errors=10), weight=10)
    good = then(before, seen(Arm(), arm(2000, errors=22), weight=100))
    bad = then(before, seen(Arm(), arm(2000, errors=100), weight=100))
    assert RULE.judge(good, ALPHA).answer == "advance"
    assert RULE.judge(bad, ALPHA).answer == "roll_back"
    assert RULE.judge(seen(Arm(), arm(2000, errors=22), weight=100), ALPHA).answer == "not_yet"


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

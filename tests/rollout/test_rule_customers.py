"""Rules about scored customers: their features, scores, decisions, and segments."""

import math

import numpy as np
import pytest

from rollout.evidence import Arm, Evidence, Window
from rollout.rules.decision_rate import DecisionRate, DecisionRateRule
from rollout.rules.features import FeatureHealth, FeatureHealthRule
from rollout.rules.rule import Rule
from rollout.rules.score_shift import ScoreShift, ScoreShiftRule
from rollout.rules.segments import Segments, SegmentsRule
from support.rollout_evidence import arm, beta_scores, scored, seen, then

FEATURES = FeatureHealthRule(FeatureHealth(tolerance=0.01))
SCORES = ScoreShiftRule(ScoreShift(tolerance=0.05))
DECISIONS = DecisionRateRule(DecisionRate(tolerance=0.10))
SEGMENTS = SegmentsRule(Segments(tolerance=0.10, min_customers=50))
ALPHA = 0.01


@pytest.mark.parametrize("kind", ["missing", "stale", "degraded"])
def test_each_kind_of_bad_features_is_found(kind: str) -> None:
    verdict = FEATURES.judge(seen(arm(9000, **{kind: 90}), arm(1000, **{kind: 80}), weight=10), ALPHA)
    assert verdict.answer == "roll_back"
    assert "8.00% of 1000" in verdict.reason
    same = seen(arm(9000, **{kind: 900}), arm(1000, **{kind: 100}), weight=10)
    assert FEATURES.judge(same, ALPHA).answer == "advance"


def test_stale_features_of_all_customers_are_found_in_the_shadow() -> None:
    shadow = seen(arm(60), arm(60, stale=60), weight=0, mirror=True)
    assert FEATURES.judge(shadow, ALPHA).answer == "roll_back"


def test_scores_that_moved_are_found_on_the_same_customers() -> None:
    before = beta_scores(1, 500)
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.03, 500)
    for moved, expected in ((0.0, "advance"), (0.03, "advance"), (0.1, "roll_back"), (-0.1, "roll_back")):
        after = np.clip(before + moved + noise, 0, 1)
        pairs = after - before
        evidence = seen(scored(before), scored(after), weight=0, mirror=True, pairs=pairs)
        verdict = SCORES.judge(evidence, ALPHA)
        assert verdict.answer == expected, verdict.reason
        assert verdict.numbers["low"] < pairs.mean() < verdict.numbers["high"]


@pytest.mark.parametrize("moved", [0.15, -0.15])
def test_scores_that_moved_are_found_on_other_customers(moved: float) -> None:
    stable = scored(beta_scores(1, 6000) * 0.6 + 0.2)
    shifted = seen(stable, scored(beta_scores(2, 600) * 0.6 + 0.2 + moved), weight=10)
    assert SCORES.judge(shifted, ALPHA).answer == "roll_back"
    same = seen(stable, scored(beta_scores(2, 600) * 0.6 + 0.2), weight=10)
    assert SCORES.judge(same, ALPHA).answer == "advance"


def test_a_crowd_that_changes_between_stages_is_no_shift() -> None:
    """Stable's scores are of the morning, the canary's of the evening, if one pools them."""
    morning = seen(scored(beta_scores(1, 5000)), scored(beta_scores(2, 60)), weight=1)
    evening = seen(scored(beta_scores(3, 500, 0.3)), scored(beta_scores(4, 500, 0.3)))
    assert SCORES.judge(then(morning, evening), ALPHA).answer == "advance"


@pytest.mark.parametrize(
    ("high", "expected"), [(300, "advance"), (370, "advance"), (600, "roll_back"), (60, "roll_back")]
)
def test_decisions_may_move_either_way_but_not_far(high: int, expected: str) -> None:
    evidence = seen(arm(9000, high_risk=2700), arm(1000, high_risk=high), weight=10)
    assert DECISIONS.judge(evidence, ALPHA).answer == expected


def segmented(seed: int, rows: int, moved: float = 0.0) -> Arm:
    spain, france = beta_scores(seed, rows), beta_scores(seed + 100, rows // 4, moved)
    return scored(np.r_[spain, france], segments={"country=es": spain, "country=fr": france})


def test_a_shift_in_one_small_segment_is_found() -> None:
    """The mean over all customers moves by 0.05 only, which score_shift tolerates."""
    evidence = seen(segmented(1, 4000), segmented(2, 2000, moved=0.25))
    assert SCORES.judge(evidence, ALPHA).answer == "advance"
    verdict = SEGMENTS.judge(evidence, ALPHA)
    assert verdict.answer == "roll_back"
    assert verdict.reason.startswith("country=fr")


def test_the_same_segments_may_go_on() -> None:
    assert SEGMENTS.judge(seen(segmented(1, 4000), segmented(2, 2000)), ALPHA).answer == "advance"


def test_a_segment_that_appears_later_takes_nothing_from_those_before_it() -> None:
    shifted = seen(segmented(1, 4000), segmented(2, 2000, moved=0.25))
    before = SEGMENTS.judge(shifted, ALPHA).numbers["e_value"]
    fresh = {f"country=x{number}": beta_scores(number, 60) for number in range(50)}
    later = seen(scored(beta_scores(5, 3000), segments=fresh), scored(beta_scores(6, 3000), segments=fresh))
    after = SEGMENTS.judge(then(shifted, later), ALPHA).numbers["e_value"]
    assert after == pytest.approx(before, rel=0.01)
    assert SEGMENTS.judge(then(later, shifted), ALPHA).numbers["e_value"] < before / 100


def test_customers_who_ask_in_several_stages_are_not_counted_as_others_in_each() -> None:
    """The same three customers of the canary lack features in each stage, as they would on stable."""
    stages = [
        seen(arm(400, missing=8), arm(20 + weight, missing=3), weight=weight) for weight in (1, 5, 25, 50)
    ]
    alone = max(FEATURES.judge(stage, ALPHA).numbers["e_value"] for stage in stages)
    together = FEATURES.judge(then(*stages), ALPHA).numbers["e_value"]
    assert together <= alone + 1


def test_without_segments_or_with_few_customers_nothing_waits() -> None:
    assert SEGMENTS.judge(seen(arm(), arm()), ALPHA).reason == "no segments"
    few = SEGMENTS.judge(seen(segmented(1, 40), segmented(2, 40, moved=0.4)), ALPHA)
    assert few.answer == "advance"
    assert "fewer than 50 customers" in few.reason


RULES: list[Rule] = [FEATURES, SCORES, DECISIONS]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_they_wait_for_the_prediction_log(rule: Rule) -> None:
    stable, canary = scored(beta_scores(1, 500)), scored(beta_scores(2, 500))
    assert rule.judge(Evidence(), ALPHA).answer == "not_yet"
    assert rule.judge(seen(Arm(requests=100), Arm(requests=100)), ALPHA).answer == "not_yet"
    few = seen(stable, scored(beta_scores(2, 20)))
    assert rule.judge(few, ALPHA).answer == "not_yet"
    assert "50 needed" in rule.judge(few, ALPHA).reason
    assert rule.judge(seen(stable, canary), ALPHA).answer == "advance"
    assert rule.judge(then(seen(stable, canary), Evidence((Window(25),))), ALPHA).answer == "not_yet"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_alone_at_weight_100_the_stages_before_speak(rule: Rule) -> None:
    stable, canary = scored(beta_scores(1, 500)), scored(beta_scores(2, 500))
    alone = seen(Arm(), scored(beta_scores(3, 500)), weight=100)
    assert rule.judge(then(seen(stable, canary), alone), ALPHA).answer == "advance"


@pytest.mark.parametrize("value", [math.nan, 1.5, -0.1])
def test_a_score_that_is_none_is_never_a_yes(value: float) -> None:
    good = beta_scores(1, 500)
    bad = np.r_[good, value]
    broken = arm(501, scores=bad, segments={"country=es": bad})
    for evidence in (seen(scored(good), broken), seen(broken, scored(good))):
        assert SCORES.judge(evidence, ALPHA).answer == "not_yet"
        assert SEGMENTS.judge(evidence, ALPHA).answer == "not_yet"
    pairs = seen(scored(good), scored(good), weight=0, mirror=True, pairs=np.array([0.0, math.nan]))
    assert SCORES.judge(pairs, ALPHA).answer == "not_yet"
    assert DECISIONS.judge(seen(arm(), arm(100, high_risk=math.nan)), ALPHA).answer == "not_yet"
    assert FEATURES.judge(seen(arm(), arm(100, stale=math.nan)), ALPHA).answer == "not_yet"

"""Slowness: the share beyond the objective, and the p99 by the proxy's histogram, in blocks of time."""

import math

import numpy as np
import pytest

from rollout.evidence import Arm, Blocks, Evidence
from rollout.rules.latency import Latency, LatencyRule
from support.rollout_evidence import EDGES, arm, lognormal, seen, then, timed

RULE = LatencyRule(Latency(objective_ms=250, tolerance=0.01, max_p99_ratio=1.5, min_requests=500))
ALPHA = 0.01


def test_the_same_latencies_may_go_on() -> None:
    verdict = RULE.judge(seen(timed(lognormal(1, 5000, 20)), timed(lognormal(2, 5000, 20))), ALPHA)
    assert verdict.answer == "advance"
    assert verdict.numbers["p99_ratio"] == pytest.approx(1, abs=0.15)


def test_a_p99_three_times_slower_is_taken_back_long_before_the_objective() -> None:
    """No request took longer than the objective, on either."""
    verdict = RULE.judge(seen(timed(lognormal(1, 5000, 12)), timed(lognormal(2, 5000, 40))), ALPHA)
    assert verdict.answer == "roll_back"
    assert "its p99 is more than 1.5 times stable's" in verdict.reason


def test_a_slower_median_with_the_same_p99_is_let_through() -> None:
    """98 of 100 at 6 ms instead of 1 ms, p99 30 ms on both: the rule is about the p99."""
    random = np.random.default_rng(3)
    tail = random.random(40_000) < 0.02
    stable = np.where(tail[:20_000], random.uniform(20, 40, 20_000), 1.0)
    canary = np.where(tail[20_000:], random.uniform(20, 40, 20_000), 6.0)
    assert np.median(canary) == 6 * np.median(stable)
    verdict = RULE.judge(seen(timed(stable), timed(canary)), ALPHA)
    assert verdict.answer == "advance", verdict.reason
    assert verdict.numbers["e_value"] < 1


def test_what_the_ratio_allows_is_no_harm() -> None:
    verdict = RULE.judge(seen(timed(lognormal(1, 5000, 20)), timed(lognormal(2, 5000, 26))), ALPHA)
    assert verdict.answer == "advance"


def test_more_slow_requests_are_taken_back() -> None:
    stable, canary = lognormal(1, 9000, 20), lognormal(2, 1000, 20)
    stable[::100], canary[::16] = 400, 400
    verdict = RULE.judge(seen(timed(stable), timed(canary), weight=10), ALPHA)
    assert verdict.answer == "roll_back"
    assert "slow requests 6.30% of 1000" in verdict.reason


def test_within_the_tolerance_slow_requests_are_no_harm() -> None:
    stable, canary = lognormal(1, 9000, 20), lognormal(2, 1000, 20)
    stable[::100], canary[::60] = 400, 400
    assert RULE.judge(seen(timed(stable), timed(canary), weight=10), ALPHA).answer == "advance"


def test_one_stall_is_one_block_however_many_requests_wait_behind_it() -> None:
    """Three stalls of the canary's process in four minutes, hundreds of requests each."""
    stable, canary = lognormal(1, 5000, 20), lognormal(2, 5000, 20)
    for begin in (400, 2000, 4500):
        canary[begin : begin + 120] = 600.0
    verdict = RULE.judge(seen(timed(stable), timed(canary)), ALPHA)
    assert "7.20% of 5000" in verdict.reason
    assert verdict.answer == "advance", verdict.reason
    canary[np.arange(0, 5000, 14)] = 600.0  # the same number in every block is no stall
    assert RULE.judge(seen(timed(stable), timed(canary)), ALPHA).answer == "roll_back"


def test_two_p99s_alone_are_shown_and_not_judged() -> None:
    verdict = RULE.judge(seen(arm(1000, p99_ms=20.0), arm(1000, p99_ms=90.0)), ALPHA)
    assert verdict.answer == "advance"
    assert "p99 4.50 times stable's" in verdict.reason


def test_too_few_requests_for_a_p99_do_not_hold_a_small_stage_up() -> None:
    few = seen(timed(lognormal(1, 400, 12)), timed(lognormal(2, 100, 14)), weight=1)
    assert RULE.judge(few, ALPHA).answer == "advance"


def test_alone_at_weight_100_it_is_compared_with_the_stable_of_before() -> None:
    before = seen(timed(lognormal(1, 5000, 12)), timed(lognormal(2, 500, 12)), weight=10)
    good = then(before, seen(Arm(), timed(lognormal(3, 5000, 12)), weight=100))
    bad = then(before, seen(Arm(), timed(lognormal(3, 5000, 60)), weight=100))
    assert RULE.judge(good, ALPHA).answer == "advance"
    assert RULE.judge(bad, ALPHA).answer == "roll_back"


def test_an_identical_tail_is_hardly_ever_taken_back() -> None:
    answers = [
        RULE.judge(seen(timed(lognormal(s, 800, 20)), timed(lognormal(1000 + s, 800, 20))), 0.2).answer
        for s in range(40)
    ]
    assert answers.count("roll_back") <= 2


TWO = np.array([50.0, 50.0])


@pytest.mark.parametrize(
    "damaged",
    [
        arm(100, slow=101),
        arm(100, p99_ms=math.nan),
        arm(100, latency_ms={10.0: 50, 20.0: 40}),
        arm(100, latency_ms={10.0: math.nan}),
        arm(100, blocks=Blocks(TWO, TWO * 0, (10.0, math.inf), np.array([[50.0, 40.0], [50.0, 50.0]]))),
        arm(100, blocks=Blocks(TWO, TWO * 0, (10.0, math.inf), np.array([[50.0, math.nan], [50.0, 50.0]]))),
    ],
)
def test_damaged_evidence_is_never_a_yes(damaged: Arm) -> None:
    assert RULE.judge(seen(arm(), damaged), ALPHA).answer == "not_yet"
    assert RULE.judge(seen(damaged, arm()), ALPHA).answer == "not_yet"


def test_no_requests_yet_is_not_yet() -> None:
    assert RULE.judge(Evidence(), ALPHA).answer == "not_yet"


def test_blocks_of_a_proxy_counted_by_other_edges_are_not_compared() -> None:
    stable, slow = timed(lognormal(1, 5000, 12)), timed(lognormal(2, 5000, 60))
    other = Blocks(stable.blocks.requests, stable.blocks.errors, EDGES[1:], stable.blocks.within[:, 1:])
    both = seen(Arm(requests=5000, blocks=other), slow)
    assert RULE.judge(both, ALPHA).answer == "advance"

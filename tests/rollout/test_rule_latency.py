"""Slowness: the share beyond the objective, and the tail by the proxy's histogram."""

import math

import numpy as np
import pytest
from rollout_evidence import arm, seen

from rollout.config import Latency
from rollout.evidence import Arm, Evidence
from rollout.rules.latency import LatencyRule

RULE = LatencyRule(Latency(objective_ms=250, tolerance=0.01, max_p99_ratio=2.0, min_requests=500))
EDGES = (5, 10, 25, 50, 100, 250, 500, 1000, 2500)
ALPHA = 0.01


def timed(seed: int, requests: int, mean_ms: float, last_edge: bool = True) -> Arm:
    """Requests of a lognormal latency around `mean_ms`."""
    took = mean_ms * np.random.default_rng(seed).lognormal(0, 0.6, requests)
    histogram = {float(edge): int((took <= edge).sum()) for edge in EDGES}
    if last_edge:
        histogram[math.inf] = requests
    p99 = float(np.quantile(took, 0.99))
    return arm(requests, slow=int((took > 250).sum()), p99_ms=p99, latency_ms=histogram)


@pytest.mark.parametrize("last_edge", [True, False])
def test_the_same_latencies_may_go_on(last_edge: bool) -> None:
    verdict = RULE.judge(seen(timed(1, 5000, 20, last_edge), timed(2, 5000, 20, last_edge)), ALPHA)
    assert verdict.answer == "advance"
    assert verdict.numbers["p99_ratio"] == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("last_edge", [True, False])
def test_a_tail_three_times_slower_is_taken_back_long_before_the_objective(last_edge: bool) -> None:
    """No request took longer than the objective, on either."""
    verdict = RULE.judge(seen(timed(1, 5000, 12, last_edge), timed(2, 5000, 40, last_edge)), ALPHA)
    assert verdict.answer == "roll_back"
    assert "its tail is more than 2 times slower" in verdict.reason


def test_what_the_ratio_allows_is_no_harm() -> None:
    assert RULE.judge(seen(timed(1, 5000, 20), timed(2, 5000, 30)), ALPHA).answer == "advance"


def test_more_slow_requests_are_taken_back_without_any_histogram() -> None:
    verdict = RULE.judge(seen(arm(9000, slow=90), arm(1000, slow=60), weight=10), ALPHA)
    assert verdict.answer == "roll_back"
    assert "slow requests 6.00% of 1000" in verdict.reason


def test_within_the_tolerance_slow_requests_are_no_harm() -> None:
    assert RULE.judge(seen(arm(9000, slow=90), arm(1000, slow=19), weight=10), ALPHA).answer == "advance"


def test_two_p99s_alone_are_shown_and_not_judged() -> None:
    verdict = RULE.judge(seen(arm(1000, p99_ms=20.0), arm(1000, p99_ms=90.0)), ALPHA)
    assert verdict.answer == "advance"
    assert "p99 4.50 times stable's" in verdict.reason


def test_too_few_requests_for_a_tail_do_not_hold_a_small_stage_up() -> None:
    verdict = RULE.judge(seen(timed(1, 5000, 12), timed(2, 100, 14), weight=1), ALPHA)
    assert verdict.answer == "advance"


def test_an_identical_tail_is_hardly_ever_taken_back() -> None:
    answers = [RULE.judge(seen(timed(s, 800, 20), timed(1000 + s, 800, 20)), 0.2).answer for s in range(40)]
    assert answers.count("roll_back") <= 2


@pytest.mark.parametrize(
    "damaged",
    [
        arm(100, slow=101),
        arm(100, p99_ms=math.nan),
        arm(100, latency_ms={10.0: 50, 20.0: 40}),
        arm(100, latency_ms={10.0: math.nan}),
    ],
)
def test_damaged_evidence_is_never_a_yes(damaged: Arm) -> None:
    assert RULE.judge(seen(arm(), damaged), ALPHA).answer == "not_yet"
    assert RULE.judge(seen(damaged, arm()), ALPHA).answer == "not_yet"


def test_no_requests_yet_is_not_yet() -> None:
    assert RULE.judge(Evidence(), ALPHA).answer == "not_yet"

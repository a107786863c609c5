"""The benchmark judges thousands of rollouts at once: it must say what the rules say of each."""

import numpy as np
import pytest

from benchmarks.all_rules import Rollouts, all_rules, evidence_of, looks
from benchmarks.threshold_rules import Checks, checked, simulated, stopped, tuned
from churn.settings import load_settings
from rollout.rules import judge_all, rules_of

CONFIG = load_settings().rollout


def test_all_rollouts_at_once_are_judged_as_the_product_judges_one() -> None:
    state = Rollouts(CONFIG, CONFIG.alpha, 3)
    windows, compared = [], 0
    for stage, _, last, canary, stable in looks(CONFIG, 0.03, 100, 3, seed=5):
        evidence = state.look(stage, last, canary, stable)
        if not last:
            continue
        windows.append((stage, canary, stable))
        for verdict in judge_all(rules_of(CONFIG), evidence_of(windows, 0), CONFIG.alpha):
            if verdict.rule not in evidence:
                continue
            found, expected = evidence[verdict.rule][0], np.log(verdict.numbers["e_value"])
            if verdict.rule == "outcomes":  # there the product rounds, which only weakens its evidence
                assert expected - 0.01 <= found <= expected + 1.5
            else:
                assert found == pytest.approx(expected, rel=0.03, abs=0.05), verdict
            compared += 1
    assert compared > 30


def test_bad_canaries_are_caught_and_good_ones_are_not() -> None:
    bad = np.min(list(all_rules(CONFIG, 0.05, CONFIG.alpha, 200, 20, seed=1).values()), axis=0)
    good = np.min(list(all_rules(CONFIG, 0.01, CONFIG.alpha, 200, 20, seed=1).values()), axis=0)
    assert np.isfinite(bad).mean() > 0.9
    assert np.isinf(good).mean() > 0.9


def test_a_threshold_rule_stops_at_its_last_allowed_failure() -> None:
    seen = Checks(np.array([[3.0, 1, 3, 3], [1, 3, 1, 1]]), np.array([[10.0, 20, 30, 40]] * 2))
    assert stopped(seen, 1, False, 2).tolist() == [10, 20]
    assert stopped(seen, 2, False, 2).tolist() == [30, np.inf]
    assert stopped(seen, 2, True, 2).tolist() == [40, np.inf]


def test_tuning_keeps_the_false_alarms_that_it_was_given() -> None:
    quiet = simulated(CONFIG.stages, (0.01, 0.01), False, 1000, seed=1)
    harm = simulated(CONFIG.stages, (0.03, 0.01), False, 1000, seed=2)
    rule = tuned([quiet], harm, (8, 16), True, 0.05)
    took = stopped(checked(quiet, rule.size, True), rule.failures, rule.in_a_row, rule.bound)
    assert np.isfinite(took).mean() <= 0.05
    assert rule.caught >= 0.99

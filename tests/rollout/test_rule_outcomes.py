"""What became of the customers: log-loss and calibration against stable's."""

import math

import numpy as np
import pytest

from rollout.evidence import Arm
from rollout.rules.outcomes import Outcomes, OutcomesRule
from support.rollout_evidence import arm, labelled, seen

RULE = OutcomesRule(Outcomes(log_loss_tolerance=0.01, calibration_tolerance=0.05))
ALPHA = 0.01


def outcomes(seed: int, rows: int, factor: float = 1.0, noise: float = 0.0) -> Arm:
    """Customers who churn with a probability p, and whose scores are `factor` times p plus noise."""
    random = np.random.default_rng(seed)
    truth = random.beta(2, 5, rows)
    scores = np.clip(truth * factor + random.normal(0, noise, rows) if noise else truth * factor, 0, 1)
    return labelled(scores, random.random(rows) < truth)


def test_labels_that_are_not_there_hold_nothing_up() -> None:
    assert RULE.judge(seen(arm(), arm()), ALPHA).answer == "advance"
    verdict = RULE.judge(seen(outcomes(1, 500), arm()), ALPHA)
    assert (verdict.answer, verdict.reason) == ("advance", "no labels yet")


def test_a_model_as_good_may_go_on() -> None:
    verdict = RULE.judge(seen(outcomes(1, 3000), outcomes(2, 3000)), ALPHA)
    assert verdict.answer == "advance"
    assert verdict.numbers["log_loss"] == pytest.approx(verdict.numbers["stable_log_loss"], abs=0.05)


@pytest.mark.parametrize("factor", [0.4, 1.8])
def test_scores_too_low_or_too_high_for_what_happened_are_found(factor: float) -> None:
    verdict = RULE.judge(seen(outcomes(1, 3000), outcomes(2, 3000, factor)), ALPHA)
    assert verdict.answer == "roll_back"
    assert abs(verdict.numbers["gap"]) > abs(verdict.numbers["stable_gap"]) + 0.05


def test_a_worse_log_loss_is_found_though_calibrated_on_average() -> None:
    """Scores that are independent of the customer."""
    blind = outcomes(2, 6000).labelled
    shuffled = labelled(np.random.default_rng(9).permutation(blind.scores), blind.churned)
    verdict = RULE.judge(seen(outcomes(1, 6000), shuffled), ALPHA)
    assert verdict.answer == "roll_back"
    assert abs(verdict.numbers["gap"]) < 0.02


def test_being_miscalibrated_as_stable_is_or_its_mirror_image_is_no_harm() -> None:
    low, high = outcomes(1, 3000, 0.6), outcomes(2, 3000, 1.4)
    config = Outcomes(log_loss_tolerance=1.0, calibration_tolerance=0.05)
    assert OutcomesRule(config).judge(seen(low, high), ALPHA).answer == "advance"
    assert OutcomesRule(config).judge(seen(outcomes(1, 3000), high), ALPHA).answer == "roll_back"


def test_a_certain_score_that_was_wrong_is_a_bounded_loss() -> None:
    verdict = RULE.judge(seen(labelled([0.0, 1.0], [0, 1]), labelled([0.0, 1.0], [1, 0])), ALPHA)
    assert verdict.answer == "advance"
    assert verdict.numbers["log_loss"] == pytest.approx(-math.log(0.01))


@pytest.mark.parametrize(
    ("scores", "churned"),
    [([0.5, math.nan], [0, 1]), ([0.5, 0.5], [0, 2]), ([0.5], [0, 1]), ([0.5], [math.nan])],
)
def test_damaged_labels_are_never_a_yes(scores: list[float], churned: list[float]) -> None:
    broken = labelled(scores, churned)
    for evidence in (seen(outcomes(1, 100), broken), seen(broken, outcomes(1, 100))):
        assert RULE.judge(evidence, ALPHA).answer == "not_yet"

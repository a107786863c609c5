"""The calibration gate on few rows: what a right model shows by chance is no reason to refuse it."""

import numpy as np
import pytest

from training.evaluate.bootstrap import Resampling
from training.gates.calibration import Calibrated, ece_by_chance
from training.gates.evidence import Evidence
from training.gates.sample import Parts, Sample
from training.learn.metrics import expected_calibration_error

HOW = Resampling(resamples=200)


def judged(draw: np.random.Generator, rows: int, shift: float) -> bool:
    truth = draw.beta(2, 3, rows)
    churned = (draw.random(rows) < truth).astype(np.int64)
    score = np.clip(truth + shift, 0.001, 0.999)
    whole = Parts(np.zeros(rows, dtype=np.int64), ("all",))
    sample = Sample(np.arange(rows), churned.astype(float), score, 0.5, whole, how=HOW)
    (verdict,) = Calibrated(max_ece=0.05).judge(Evidence("ab" * 32, sample=sample))
    return verdict.passed


@pytest.mark.parametrize("rows", [200, 1000, 20_000])
def test_the_error_by_chance_is_that_of_drawn_labels(rows: int) -> None:
    draw = np.random.default_rng(0)
    score = draw.beta(2, 5, rows)
    drawn = [
        expected_calibration_error((draw.random(rows) < score).astype(np.int64), score) for _ in range(300)
    ]
    assert ece_by_chance(score) == pytest.approx(np.mean(drawn), rel=0.06)


@pytest.mark.parametrize(("rows", "passing"), [(300, 0.6), (1000, 0.95), (5000, 0.99)])
def test_a_right_model_passes_and_a_wrong_one_does_not(rows: int, passing: float) -> None:
    """Without the subtraction no model of 300 rows passes, however right it is."""
    draw = np.random.default_rng(1)
    right = [judged(draw, rows, shift=0.0) for _ in range(60)]
    wrong = [judged(draw, rows, shift=0.12) for _ in range(60)]
    assert np.mean(right) >= passing and np.mean(wrong) <= 0.1

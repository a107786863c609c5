import numpy as np
import pytest
from sklearn import metrics as reference

from training.learn.metrics import NAMES, evaluate


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    probability = draw.beta(4, 2, size=5000)
    return (draw.random(5000) < probability).astype(int), probability


def test_they_agree_with_scikit_learn(scored: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = scored
    found = evaluate(y, p, threshold=0.6)
    predicted = p > 0.6

    assert tuple(found) == NAMES
    assert found["log_loss"] == pytest.approx(reference.log_loss(y, p))
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(y, p))
    assert found["auprc"] == pytest.approx(reference.average_precision_score(y, p))
    assert found["auprc_lift"] == pytest.approx(found["auprc"] / y.mean())
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(y, predicted))
    assert found["precision"] == pytest.approx(reference.precision_score(y, predicted, average="macro"))
    assert found["recall"] == pytest.approx(reference.recall_score(y, predicted, average="macro"))
    assert found["f1"] == pytest.approx(reference.f1_score(y, predicted, average="macro"))
    assert found["brier"] == pytest.approx(reference.brier_score_loss(y, p))
    assert found["rows"] == 5000


def test_calibration_error_sees_overconfidence(scored: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = scored
    overconfident = p**3 / (p**3 + (1 - p) ** 3)

    assert evaluate(y, p)["ece"] < 0.02
    assert evaluate(y, overconfident)["ece"] > 0.08
    assert evaluate([0, 1], [0.0, 1.0])["ece"] == 0.0


@pytest.mark.parametrize("scores", [[0.2, np.nan], [0.2, np.inf]])
def test_a_score_that_is_no_number_leaves_no_metric(scores: list[float]) -> None:
    found = evaluate([0, 1], scores)

    assert np.isnan(found["log_loss"])
    assert np.isnan(found["auroc"])


def test_one_class_or_no_rows_leave_no_metric() -> None:
    assert np.isnan(evaluate([1, 1], [0.5, 0.6])["auroc"])
    assert np.isnan(evaluate([], [])["base_rate"])


def test_certainty_that_is_wrong_costs_a_finite_loss() -> None:
    assert 10 < evaluate([1, 0], [0.0, 1.0])["log_loss"] < 40

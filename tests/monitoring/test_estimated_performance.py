"""Estimates without labels: against exhaustive enumeration, scikit-learn, and made histories."""

from itertools import product

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from monitoring.performance.estimate import Calibrator, Matured, estimate, expected_auroc
from training.config import DecisionConfig

DECISION = DecisionConfig(customer_value=100.0)


def test_expected_auroc_is_the_ratio_of_expected_pairs_over_all_outcomes() -> None:
    """All 2^7 outcomes of seven customers, two of them with the same score."""
    random = np.random.default_rng(0)
    score = np.array([0.1, 0.2, 0.2, 0.4, 0.6, 0.7, 0.9])
    c = random.uniform(0.05, 0.95, 7)
    won = pairs = 0.0
    for outcome in product((0, 1), repeat=7):
        y = np.array(outcome)
        chance = np.prod(np.where(y == 1, c, 1 - c))
        p, n = score[y == 1], score[y == 0]
        won += chance * ((p[:, None] > n).sum() + 0.5 * (p[:, None] == n).sum())
        pairs += chance * len(p) * len(n)
    # pairs of a customer with itself do not occur: the sum over i and j differs by c(1 - c) in both
    own = (c * (1 - c)).sum()
    values, which = np.unique(score, return_inverse=True)
    number = np.bincount(which).astype(float)
    mean = np.bincount(which, c) / number
    exact = won / pairs
    positives, negatives = c.sum(), (1 - c).sum()
    among = sum((c[which == v].sum() * (1 - c[which == v]).sum()) / 2 for v in range(len(values)))
    below = sum(c[i] * (1 - c[j]) for i in range(7) for j in range(7) if score[i] > score[j])
    assert expected_auroc(mean, values, number) == pytest.approx((below + among) / (positives * negatives))
    assert exact == pytest.approx((below + among - own / 2) / (positives * negatives - own))


def test_auroc_of_known_outcomes_is_scikit_learn_s() -> None:
    random = np.random.default_rng(1)
    score, y = np.arange(200) / 200, random.integers(0, 2, 200).astype(float)
    assert expected_auroc(y, score, np.ones(200)) == pytest.approx(roc_auc_score(y, score))


def test_the_calibrator_is_scikit_learn_s_logistic_regression() -> None:
    random = np.random.default_rng(2)
    p = random.uniform(0.02, 0.98, 4000)
    y = (random.random(4000) < expit(0.4 + 0.7 * logit(p))).astype(float)
    found = Calibrator.fit(p, y, np.ones(4000)).coefficients
    x = np.column_stack([np.log(p), -np.log1p(-p)])
    other = LogisticRegression(C=1e6, max_iter=1000).fit(x, y)
    ours = expit(Calibrator(found).log_odds(p))
    assert ours == pytest.approx(other.predict_proba(x)[:, 1], abs=0.01)


def history(seed: int, shift: float = 0.0, period: float = 0.2) -> tuple[Matured, np.ndarray, np.ndarray]:
    """Six matured moments and one of now: miscalibrated scores, levels that differ between moments."""
    random = np.random.default_rng(seed)
    customers, moments = 1500, 6
    level = random.normal(0, period, moments + 1)
    person = random.normal(0, 1, customers)
    score, churned = [], []
    for moment in range(moments + 1):
        z = 1 + person + random.normal(0, 0.5, customers) + (shift if moment == moments else 0)
        score.append(expit(1.3 * z - 0.3))
        churned.append((random.random(customers) < expit(z + level[moment])).astype(float))
    matured = Matured(
        np.tile(np.arange(customers), moments), np.repeat(np.arange(moments), customers),
        np.concatenate(score[:-1]), np.concatenate(churned[:-1]), np.ones(customers * moments),
    )  # fmt: skip
    return matured, score[-1], churned[-1]


def test_intervals_contain_what_came_true_in_nine_of_ten_histories() -> None:
    covered = {"log_loss_nats": 0, "auroc": 0, "profit": 0, "churn_rate": 0}
    for seed in range(40):
        matured, score, churned = history(seed)
        found = estimate(matured, score, 0.5, DECISION, seed).metrics
        true = {
            "log_loss_nats": -np.mean(churned * np.log(score) + (1 - churned) * np.log1p(-score)),
            "auroc": roc_auc_score(churned, score),
            "profit": np.mean(np.where(score * 37 - 11 > 0, churned * 37 - 11, 0)),
            "churn_rate": churned.mean(),
        }
        for name in covered:
            covered[name] += found[name].low <= true[name] <= found[name].high
    assert min(covered.values()) > 36, covered


def test_a_shift_of_the_inputs_moves_the_estimate_with_the_truth() -> None:
    matured, score, churned = history(5, shift=1.0, period=0.0)
    found = estimate(matured, score, 0.5, DECISION).metrics["churn_rate"]
    assert found.value == pytest.approx(churned.mean(), abs=0.02)
    assert abs(found.value - matured.churned.mean()) > 0.1

"""Rivals of the rollout's rules judge as their authors describe them, rollout by rollout."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm, rankdata

from benchmarks import kayenta, sequential_rivals
from benchmarks.parts import Parts, digest
from churn.settings import load_settings

STAGES = load_settings().rollout.stages


def mann_whitney(canary: np.ndarray, baseline: np.ndarray, shift: float) -> float:
    """Kayenta's `wilcoxonDiff`, for one pair of samples."""
    n, m = len(canary), len(baseline)
    ranks = rankdata(np.concatenate([canary - shift, baseline]))
    dz = ranks[:n].sum() - n * (n + 1) / 2 - n * m / 2
    ties = np.unique(ranks, return_counts=True)[1]
    sigma = np.sqrt(n * m / 12 * (n + m + 1 - (ties**3 - ties).sum() / ((n + m) * (n + m - 1))))
    return float((dz - np.sign(dz) / 2) / sigma)


def end(canary: np.ndarray, baseline: np.ndarray, z: float) -> float:
    low, high = canary.min() - baseline.max() - 0.3, canary.max() - baseline.min() + 0.3
    return float(brentq(lambda shift: mann_whitney(canary, baseline, shift) - z, low, high))


def test_kayenta_classifies_as_its_root_finder_does() -> None:
    random = np.random.default_rng(3)
    canary, baseline = random.poisson(3.0, (40, 50)), random.poisson(1.6, (40, 50))
    canary[:10] = random.poisson(1.6, (10, 50))
    histograms = [kayenta._histogram(of, 15) for of in (canary, baseline)]
    found = kayenta.increased(*histograms)
    for one, other, high in zip(canary, baseline, found, strict=True):
        lower, shift = end(one, other, norm.ppf(0.99)), end(one, other, 0.0)
        assert high == (round(lower) > 0.25 * abs(round(shift)))
    assert found[10:].mean() > 0.5 > found[:10].mean()


def test_a_run_of_kayenta_looks_at_all_moments_since_the_beginning() -> None:
    canary = np.repeat([[1, 6, 6, 6]], 10, axis=1).astype(np.int16)
    errors = kayenta.Errors(20, canary, np.ones_like(canary))
    found = kayenta.runs(errors, 10)
    assert found.statistic[0].tolist() == pytest.approx([-np.inf, -np.inf, 13 / 3, 4.75])
    assert found.done[0].tolist() == [200, 400, 600, 800]


def test_the_msprt_is_the_published_one_where_both_were_asked_alike() -> None:
    x, y, n, tau = 0.02, 0.05, 400, 0.03
    v = x * (1 - x) + y * (1 - y)
    published = np.sqrt(v / (v + n * tau**2)) * np.exp(
        n**2 * tau**2 * (y - x) ** 2 / (2 * v * (v + n * tau**2))
    )
    path = sequential_rivals.Path(np.array([n]), np.array([[y - x]]), np.array([[v / n]]))
    assert np.exp(sequential_rivals.log_ratio(path, tau, False)) == pytest.approx(published)
    better = sequential_rivals.Path(path.done, -path.difference, path.variance)
    assert sequential_rivals.log_ratio(better, tau, True)[0, 0] == -np.inf


def test_the_msprt_holds_alpha_and_finds_a_threefold_rate() -> None:
    rule = sequential_rivals.published(0.02, 0.01)
    took = {
        rates: sequential_rivals.stopped(sequential_rivals.observed(STAGES, rates, 20, 300, 1), rule)
        for rates in ((0.01, 0.01), (0.03, 0.01))
    }
    assert np.isfinite(took[0.01, 0.01]).mean() <= 0.02
    assert np.isfinite(took[0.03, 0.01]).mean() >= 0.99


def test_tuning_an_msprt_holds_the_false_alarms_and_is_quicker_than_the_published_one() -> None:
    null = sequential_rivals.observed(STAGES, (0.01, 0.01), 20, 400, 2)
    harmful = sequential_rivals.observed(STAGES, (0.03, 0.01), 20, 400, 3)
    rule = sequential_rivals.tuned([null], harmful, 0.02)
    assert np.isfinite(sequential_rivals.stopped(null, rule)).mean() <= 0.02
    published = sequential_rivals.stopped(harmful, sequential_rivals.published(0.02, 0.02))
    assert np.median(sequential_rivals.stopped(harmful, rule)) <= np.median(published)


def test_a_part_is_made_once_and_again_when_its_code_has_changed(tmp_path: Path) -> None:
    code, calls = tmp_path / "code.py", []
    code.write_text("x = 1")

    def make() -> list[float]:
        calls.append(1)
        return [1.0, float("inf")]

    for _ in range(2):
        assert Parts(tmp_path / "parts", digest([code])).part("plan: a", make) == [1.0, float("inf")]
    assert len(calls) == 1
    code.write_text("x = 2")
    Parts(tmp_path / "parts", digest([code])).part("plan: a", make)
    assert len(calls) == 2
    Parts(tmp_path / "parts", digest([code]), again=True).part("plan: a", make)
    assert len(calls) == 3

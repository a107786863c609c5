"""Gaps between groups: a significant one is refused, chance is not, and few churners are not judged."""

import numpy as np
import pytest

from training.evaluate.bootstrap import Resampling, largest_gap
from training.gates import Evidence, Parts, Sample
from training.gates.fairness import Fair


def of(rates: dict[str, tuple[int, float]], churners: dict[str, int] | None = None) -> Evidence:
    """Groups of so many rows, of whom a share is selected; all churned, or the first so many."""
    draw = np.random.default_rng(0)
    code = np.repeat(np.arange(len(rates)), [rows for rows, _ in rates.values()])
    score = np.concatenate([np.where(draw.random(rows) < rate, 0.9, 0.1) for rows, rate in rates.values()])
    churned = np.ones(len(code))
    for group, (name, (rows, _)) in enumerate(rates.items()):
        if churners is not None:
            churned[code == group] = np.arange(rows) < churners[name]
    sample = Sample(
        customer=np.arange(len(code)),
        churned=churned,
        score=score,
        threshold=0.5,
        periods=Parts(np.zeros(len(code), np.int64), ("one",)),
        groups={"gender": Parts(code, tuple(rates))},
    )
    return Evidence("", sample=sample, expected_groups=("gender",))


def test_a_gap_beyond_doubt_is_refused() -> None:
    (verdict,) = Fair().judge(of({"f": (2000, 0.4), "m": (2000, 0.8)}))

    assert not verdict.passed
    assert "m 0.8" in verdict.reason and "is surely above 0.2" in verdict.reason


def test_what_chance_may_have_done_is_not_refused() -> None:
    """Forty churners a group: recalls of .4 and .65 may be the same."""
    sizes = {"f": (200, 0.4), "m": (200, 0.65)}
    (verdict,) = Fair().judge(of(sizes, {"f": 40, "m": 40}))

    assert verdict.passed
    assert "is not surely above 0.2" in verdict.reason


def test_a_group_of_few_churners_is_named_and_not_judged() -> None:
    sizes = {"f": (2000, 0.7), "m": (2000, 0.7), "x": (150, 0.0)}
    (verdict,) = Fair().judge(of(sizes, {"f": 600, "m": 600, "x": 1}))

    assert verdict.passed
    assert "not judged, with fewer than 100 rows and 30 churners: x" in verdict.reason


def test_with_one_group_to_judge_nothing_is_known() -> None:
    sizes = {"f": (2000, 0.7), "m": (2000, 0.7)}
    (verdict,) = Fair().judge(of(sizes, {"f": 600, "m": 2}))

    assert not verdict.passed
    assert "not judged: fewer than two groups have 100 rows and 30 churners" in verdict.reason


@pytest.mark.parametrize("groups", [2, 6])
def test_the_bound_errs_as_rarely_as_it_says(groups: int) -> None:
    """Groups that are all alike: the bound of the largest gap is above zero in one of twenty draws."""
    wrong = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        group = np.repeat(np.arange(groups), 150)
        values = (draw.random(len(group)) < 0.5).astype(float)
        found = largest_gap(values, group, groups, np.arange(len(group)), Resampling(200, 0.95, seed))
        wrong += found.low > 0
    assert wrong <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95)


def test_rates_and_gap_are_those_of_the_rows() -> None:
    group = np.array([0] * 40 + [1] * 40 + [-1] * 20)
    values = np.concatenate([np.tile([1.0, 0.0], 20), np.tile([1.0, 0, 0, 0], 10), np.ones(20)])
    found = largest_gap(values, group, 2, np.arange(100), Resampling(500, 0.95, 0))

    assert found.rates.tolist() == [0.5, 0.25]
    assert (found.estimate, found.high_group, found.low_group) == (0.25, 0, 1)
    # normal approximation: both orders of the pair are bounded, so 1.96 standard errors
    assert found.low == pytest.approx(0.25 - 1.96 * np.sqrt(0.25 / 40 + 0.1875 / 40), abs=0.03)

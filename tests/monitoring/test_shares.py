"""Shares over a history of steps: the error rate of the history, natural variation, and lasting faults."""

import numpy as np
import pytest

from monitoring.change import evidence_of_change
from monitoring.checks.shares import LONGEST_ALARM, History, Margin, Properties, judge, log_e_value

LEVEL = float(np.log(20))
"""Of alpha = 5 %, large enough for a simulation of few histories."""


def test_evidence_against_a_share_is_the_capital_of_its_bets() -> None:
    stakes = np.array([0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.5, 0.8])
    hits, misses, bound = 30, 70, 0.2
    capital = (1 + stakes * (1 / bound - 1)) ** hits * (1 - stakes) ** misses
    assert log_e_value(hits, hits + misses, bound) == pytest.approx(np.log(capital.mean()))


def test_a_bound_that_cannot_be_exceeded_is_no_evidence() -> None:
    assert log_e_value(100, 100, 1.0) == 0
    assert log_e_value(100, 100, 0.999) == 0


@pytest.mark.parametrize("bound", [0.05, 0.5])
def test_few_histories_at_the_bound_have_any_alarm(bound: float) -> None:
    """A share that is always exactly at the bound is the hardest null hypothesis."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(400):
        log_e = [log_e_value(hits, 500, bound) for hits in rng.binomial(500, bound, 24)]
        alarms += bool((evidence_of_change(log_e) >= LEVEL).any())
    assert alarms <= 400 * 0.05 + 3 * np.sqrt(400 * 0.05 * 0.95)


def test_natural_variation_widens_the_margin() -> None:
    steady, varying = [100, 101, 99, 100], [50, 150, 80, 120]
    margin = Margin(0.03)
    found = {
        name: judge([*past, 200], [1000] * 5, History(margin, LEVEL, 50))
        for name, past in (("steady", steady), ("varying", varying))
    }
    assert found["steady"].is_alarm and not found["varying"].is_alarm
    assert found["steady"].bound == pytest.approx(0.13)
    assert found["varying"].bound == pytest.approx(0.1 + 4 * 0.035)  # the deviations are 50, 50, 20, 20


def test_a_difference_within_the_margin_is_no_finding_at_any_size() -> None:
    assert not judge([1e5] * 8 + [1.29e5] * 8, [1e6] * 16, History(Margin(0.03), LEVEL, 50)).is_alarm


def test_a_fault_is_found_again_as_long_as_it_lasts_and_then_becomes_normal() -> None:
    history = History(Margin(0.05), LEVEL, 50)
    steps = [100] * 5 + [600] * 6
    assert [history.add(hits, 1000).is_alarm for hits in steps] == [False] * 5 + [True] * LONGEST_ALARM + [
        False
    ] * 3


def test_after_a_fault_is_mended_there_is_no_finding() -> None:
    history = History(Margin(0.05), LEVEL, 50)
    assert [history.add(hits, 1000).is_alarm for hits in [100] * 4 + [600, 100, 101, 99]] == [
        *[False] * 4,
        True,
        *[False] * 3,
    ]


def test_too_few_customers_are_not_judged() -> None:
    history = History(Margin(0.05), LEVEL, 50)
    for _ in range(4):
        history.add(10, 100)
    judged = history.add(49, 49)
    assert not judged.is_alarm and np.isnan(judged.share) and judged.rows == 49


def test_a_ratio_of_the_rest_finds_that_nearly_all_are_gone() -> None:
    margin = Margin(3.0, is_ratio=True, of_rest=True)
    assert margin.bound(np.array([0.97, 0.97, 0.97])) == pytest.approx(0.99)
    history = History(margin, LEVEL, 50)
    assert not any(history.add(hits, 20_000).is_alarm for hits in (19_400, 19_300, 19_450, 19_600, 19_500))
    assert history.add(19_980, 20_000).is_alarm


def test_properties_are_counted_among_those_who_could_have_them() -> None:
    hits, among = np.array([True, True, False]), np.array([True, False, True])
    counts = Properties.of({("spend", "larger"): (hits, among)}, 3).counts()
    assert counts.to_dict("records") == [{"subject": "spend", "kind": "larger", "hits": 1, "rows": 2}]
    assert len(Properties.of({}, 3).counts()) == 0

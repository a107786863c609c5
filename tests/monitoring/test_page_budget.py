"""One error budget: every page rests on a declared test or on a fact, and the shares add up to alpha."""

import ast
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

from monitoring import budget
from monitoring.change import Evidence, evidence_of_change
from monitoring.checks import arrivals, served, transitions
from monitoring.config import MonitoringConfig
from monitoring.performance.robust import evidence_of_streams

CONFIG = MonitoringConfig()
ROOM = Path(budget.__file__).parent


def test_the_levels_of_all_tests_add_up_to_alpha_for_any_number_of_subjects() -> None:
    for subjects in (1, 7, 40):
        spent = sum(subjects * np.exp(-CONFIG.level(test, subjects)) for test in budget.TESTS)
        assert spent == pytest.approx(CONFIG.alpha, rel=1e-12)


def test_a_test_without_a_share_cannot_be_made() -> None:
    with pytest.raises(KeyError):
        CONFIG.level("invented", 1)


def test_every_kind_of_every_check_has_a_share() -> None:
    kinds = {*transitions.CHECKS, *arrivals.CHECKS, *served.KINDS}
    assert kinds | {"nulls", "early_avoidable_loss", "late_avoidable_loss"} == set(budget.TESTS)


def test_checks_that_page_are_tests_or_facts() -> None:
    """Names in the calls of `Finding` that page: those of a test, or those of a declared fact."""
    named = {*transitions.CHECKS.values(), *arrivals.CHECKS.values(), *budget.TESTS}
    names = set()
    for file in (*ROOM.glob("checks/*.py"), *ROOM.glob("performance/*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") == "Finding"
                and "PAGE" in ast.unparse(node)
            ):
                first = node.args[0]
                names |= {first.value} if isinstance(first, ast.Constant) else set()
    assert names  # else the search finds nothing
    assert [
        name for name in names if name not in named and not any(fnmatch(name, one) for one in budget.FACTS)
    ] == []


def test_checks_of_other_models_use_up_the_starts_of_a_change() -> None:
    """The weights of a change at check s are 1/(s(s+1)), whichever model served before."""
    values = {10: 2.0, 11: 1.0}
    alone = evidence_of_streams(values, 1)
    after = evidence_of_streams(values, 1, others=range(10))
    assert alone == pytest.approx(evidence_of_change([2.0, 1.0])[-1])
    by_hand = np.exp(3.0) / (11 * 12) + np.exp(1.0) / (12 * 13) + 1 / 13
    assert after == pytest.approx(np.log(by_hand)) and after < alone


def test_a_series_of_models_has_the_error_rate_of_one_history() -> None:
    """A new model after every fourth check; 3,000 histories at the boundary of the null hypothesis."""
    random = np.random.default_rng(0)
    alpha, alarms, restarted = 0.05, 0, 0
    for z in random.normal(size=(3000, 24)):
        log_e = 1.5 * z - 1.5**2 / 2
        hit = fresh = False
        for check in range(24):
            mine = range(check - check % 4, check + 1)
            values = {number: log_e[number] for number in mine}
            hit |= evidence_of_streams(values, 1, others=range(mine[0])) >= np.log(1 / alpha)
            fresh |= evidence_of_streams(values, 1) >= np.log(1 / alpha)
        alarms, restarted = alarms + hit, restarted + fresh
    assert alarms / 3000 <= alpha
    assert restarted > 1.5 * alarms  # a new history for each model would raise more of them


def test_a_skipped_check_is_no_evidence() -> None:
    one, other = Evidence(), Evidence()
    one.skip()
    other.add(0.0)
    assert one.add(1.0) < other.add(1.0)

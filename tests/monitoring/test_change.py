"""Evidence for a change at an unknown check: against the sum written out, and against simulated histories."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.change import evidence_of_change, first_alarm


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_the_evidence_is_the_weighted_sum_over_all_starts(log_e: list[float]) -> None:
    checks = len(log_e)
    products = [np.exp(sum(log_e[start:])) / ((start + 1) * (start + 2)) for start in range(checks)]
    later = 1 / (checks + 1)
    assert evidence_of_change(log_e)[-1] == pytest.approx(np.log(sum(products) + later), abs=1e-9)


def test_checks_without_data_are_no_evidence() -> None:
    assert evidence_of_change([0.0] * 50) == pytest.approx(np.zeros(50), abs=1e-12)


def test_false_alarms_stay_below_alpha_over_a_whole_history() -> None:
    """Likelihood ratios of a shifted normal, without a shift: 5,000 histories of 40 checks."""
    draws = np.random.default_rng(0).normal(size=(5000, 40))
    log_e = 0.7 * draws - 0.7**2 / 2
    alarms = sum(first_alarm(history, alpha=0.05) is not None for history in log_e)
    assert alarms / 5000 <= 0.05


def test_a_change_is_found_however_long_nothing_happened() -> None:
    quiet = [-0.5] * 100
    found = first_alarm([*quiet, *([2.0] * 20)], alpha=0.001)
    assert found is not None
    # the product of all checks would have to win back 50 nats first, which takes 25 checks
    assert found - 100 < 12

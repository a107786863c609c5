"""Early labels on made customers: what is promised, what is avoidable, and what a season must not change."""

import numpy as np
import pandas as pd
import pytest

from churn.settings import load_settings
from core.errors import MonitoringError
from monitoring.early_labels import Cohort, ReturnCurve, avoidable_loss, level

CUSTOMERS, STEP, HORIZON = 8_000, 14, 90
SPEC = load_settings().features.model_copy(
    update={"features": tuple(f for f in load_settings().features.features if f.name == "recency_days"),
            "derived": ()}
)  # fmt: skip


def cohort(seed: int, season: float = 1.0, reversed_share: float = 0.0) -> Cohort:
    """Customers whose rate of returns falls with their recency; `season` multiplies all rates.

    For a share of the customers the relation is reversed, which the champion's score does not know.
    """
    random = np.random.default_rng(seed)
    recency = random.uniform(0, 100, CUSTOMERS)
    true = np.where(random.random(CUSTOMERS) < reversed_share, 100 - recency, recency)
    days = random.exponential(1 / (season * 0.02 * np.exp(-true / 30)))
    churn = np.exp(-HORIZON * 0.02 * np.exp(-recency / 30))
    return Cohort(pd.DataFrame({"recency_days": recency}), churn, np.where(days <= HORIZON, days, np.nan))


@pytest.fixture(scope="module")
def curve() -> ReturnCurve:
    return ReturnCurve.fit(cohort(0), STEP)


def test_a_calibrated_champion_gets_the_returns_that_it_promised(curve: ReturnCurve) -> None:
    found = level(cohort(1), curve)
    assert found.low <= 1 <= found.high


def test_a_season_moves_the_level_and_is_not_avoidable(curve: ReturnCurve) -> None:
    before, now = cohort(2, season=0.7), cohort(3, season=0.7)
    assert level(now, curve).high < 0.85
    assert avoidable_loss(before, now, curve, SPEC).log_e_value(0.02) < 0


def test_a_reversed_relation_is_avoidable(curve: ReturnCurve) -> None:
    before, now = cohort(4, reversed_share=0.4), cohort(5, reversed_share=0.4)
    found = avoidable_loss(before, now, curve, SPEC)
    assert found.mean > 0
    assert found.log_e_value(0.02) > np.log(1000)


def test_nothing_is_avoidable_without_a_change(curve: ReturnCurve) -> None:
    evidence = [
        avoidable_loss(cohort(seed), cohort(seed + 1), curve, SPEC).log_e_value(0.02)
        for seed in range(10, 20)
    ]
    assert max(evidence) < np.log(20)


def test_the_expected_returns_of_the_matured_customers_are_the_observed_ones(curve: ReturnCurve) -> None:
    matured = cohort(0)
    assert curve.probability(matured.churn).sum() == pytest.approx(matured.returned(STEP).sum())


def test_a_step_in_which_nobody_returned_is_refused_with_a_remedy(curve: ReturnCurve) -> None:
    silent = cohort(6)
    silent = Cohort(silent.inputs, silent.churn, np.full(CUSTOMERS, np.nan))
    with pytest.raises(MonitoringError, match="choose a longer step"):
        ReturnCurve.fit(silent, STEP)
    with pytest.raises(MonitoringError, match="choose a longer step"):
        avoidable_loss(silent, cohort(7), curve, SPEC)

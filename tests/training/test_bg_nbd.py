from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from training.learn.bg_nbd import BgNbd, purchase_summary

PUBLISHED = BgNbd(r=0.243, alpha=4.414, a=0.793, b=2.426)
"""Fader, Hardie and Lee (2005), table 2: CDNOW, 2,357 customers, 39 weeks."""


@pytest.fixture(scope="module")
def summary() -> np.ndarray:
    """frequency, recency, T in weeks."""
    files = distribution("Lifetimes").files or []
    file = next(file for file in files if file.name == "cdnow_customers_summary.csv").locate()
    return pd.read_csv(str(file))[["frequency", "recency", "T"]].to_numpy(dtype=float).T


def test_it_finds_the_published_parameters(summary: np.ndarray) -> None:
    found = BgNbd.fit(*summary)

    assert summary.shape == (3, 2357)
    assert found.r == pytest.approx(PUBLISHED.r, abs=0.001)
    assert found.alpha == pytest.approx(PUBLISHED.alpha, abs=0.005)
    assert found.a == pytest.approx(PUBLISHED.a, abs=0.005)
    assert found.b == pytest.approx(PUBLISHED.b, abs=0.005)
    assert found.log_likelihood(*summary) == pytest.approx(-9582.4, abs=0.1)


def test_the_unit_of_time_changes_nothing_but_alpha(summary: np.ndarray) -> None:
    days = summary * [[1], [7], [7]]
    found = BgNbd.fit(*days)

    assert found.alpha == pytest.approx(7 * PUBLISHED.alpha, rel=0.005)
    weekly = PUBLISHED.churn(*summary, horizon=13)
    assert np.abs(found.churn(*days, horizon=91) - weekly).max() < 0.005


def test_probabilities_follow_the_story() -> None:
    def one(x: float, last: float, age: float) -> np.ndarray:
        return PUBLISHED.alive(np.array([x]), np.array([last]), np.array([age]))

    assert one(0, 0, 39) == 1.0  # in this model no customer leaves before a second purchase
    assert one(5, 38, 39) > 0.85 > 0.1 > one(5, 10, 39)
    few = PUBLISHED.churn(np.array([0.0]), np.array([0.0]), np.array([39.0]), 13)
    many = PUBLISHED.churn(np.array([20.0]), np.array([38.0]), np.array([39.0]), 13)
    assert 0 < many < 0.1 < 0.8 < few < 1


def test_churn_is_what_simulated_customers_do() -> None:
    """Customers drawn from the model itself: the probability is their frequency of not coming back."""
    model = BgNbd(r=1.0, alpha=10.0, a=0.8, b=2.5)
    draw = np.random.default_rng(0)
    age, horizon, number = 52.0, 13.0, 60_000
    rate, leaves = draw.gamma(model.r, 1 / model.alpha, number), draw.beta(model.a, model.b, number)
    x, last, back = np.zeros(number), np.zeros(number), np.zeros(number, dtype=bool)
    now, alive = np.zeros(number), np.ones(number, dtype=bool)
    while alive.any():
        now = np.where(alive, now + draw.exponential(1 / rate), now)
        seen = alive & (now < age)
        x, last = x + seen, np.where(seen, now, last)
        back |= alive & (now >= age) & (now < age + horizon)
        alive &= (now < age) & (draw.random(number) >= leaves)

    predicted = model.churn(x, last, np.full(number, age), horizon)

    for low, high in ((0, 0), (1, 2), (3, 100)):
        group = (x >= low) & (x <= high)
        assert predicted[group].mean() == pytest.approx((~back[group]).mean(), abs=0.012)


def test_the_summary_counts_days_strictly_before(tmp_path: Path) -> None:
    log = pd.DataFrame(
        {
            "user_id": ["a", "a", "a", "a", "b", "c"],
            "timestamp": pd.to_datetime(
                ["1997-01-01", "1997-01-01T12:00", "1997-01-11", "1997-02-01", "1997-01-31", "1997-02-02"],
                utc=True,
                format="ISO8601",
            ).astype("datetime64[us, UTC]"),
        }
    )
    log.to_parquet(tmp_path / "records.parquet")

    found = purchase_summary(tmp_path / "records.parquet", pd.Timestamp("1997-02-01", tz="UTC"))

    assert found.loc["a"].tolist() == [1, 10, 31]
    assert found.loc["b"].tolist() == [0, 0, 1]
    assert "c" not in found.index

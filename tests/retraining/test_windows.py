"""Windows of history that compete."""

import pandas as pd
import pytest

from retraining.config import Windows
from retraining.windows import season_distance, windows

MONTHS = list(pd.date_range("2024-01-01", "2026-03-01", freq="MS", tz="UTC"))
USE = pd.Timestamp("2026-06-01", tz="UTC")


def test_each_window_has_its_snapshots() -> None:
    found = {one.name: one.moments for one in windows(Windows(), MONTHS, USE)}
    assert list(found) == [
        "all history", "last 365 days", "last 180 days", "same season within 45 days",
    ]  # fmt: skip
    assert found["all history"] == tuple(MONTHS)
    # 180 days before 2026-03-01 is 2025-09-02
    assert found["last 180 days"] == tuple(MONTHS[-6:])
    season = [at.strftime("%Y-%m") for at in found["same season within 45 days"]]
    assert season == ["2024-05", "2024-06", "2024-07", "2025-05", "2025-06", "2025-07"]


def test_a_short_history_has_one_window_and_no_season() -> None:
    found = windows(Windows(), MONTHS[:5], MONTHS[4])
    assert [one.name for one in found] == ["all history"]


@pytest.mark.parametrize(
    ("one", "other", "days"),
    [
        ("2024-12-31", "2026-01-01", 1.0),
        ("2024-06-01", "2024-06-11", 10.0),
        ("2024-01-01", "2024-07-01", 182.0),
    ],
)
def test_seasons_wrap_around_the_end_of_the_year(one: str, other: str, days: float) -> None:
    assert season_distance(pd.Timestamp(one), pd.Timestamp(other)) == pytest.approx(days, abs=1)

"""The test rows divided into periods and segments: every part judgeable, none lost under another's name."""

import numpy as np
import pandas as pd
import pytest

from features.spec import Feature, FeaturesConfig
from training.gates import Evidence, Parts, Sample
from training.gates.slices import breakdown, periods_of, segments_of
from training.gates.worst_part import Stable


def at(moments: pd.DatetimeIndex) -> pd.DataFrame:
    return pd.DataFrame({"event_timestamp": moments})


def test_monthly_snapshots_are_parts_of_their_own() -> None:
    snapshots = pd.DatetimeIndex(np.repeat(pd.date_range("2024-01-01", periods=3, freq="MS", tz="UTC"), 400))

    assert periods_of(at(snapshots), 100).names == ("2024-01-01", "2024-02-01", "2024-03-01")


@pytest.mark.parametrize(
    ("freq", "rows", "first", "parts"),
    [
        ("6h", 1000, "2024-01", 9),  # 116 rows or more a month, and 28 of the last
        ("1min", 1000, "2024-01-01", 1),  # all of one day
        ("5D", 400, "2024", 6),  # 73 rows a year: too few, and nothing coarser
    ],
)
def test_a_moment_a_row_makes_calendar_periods(freq: str, rows: int, first: str, parts: int) -> None:
    found = periods_of(at(pd.date_range("2024-01-01", periods=rows, freq=freq, tz="UTC")), 100)

    assert (found.names[0], len(found.names)) == (first, parts)
    assert found.rows.sum() == rows


def test_two_moments_of_one_day_are_two_parts() -> None:
    morning, evening = pd.Timestamp("2024-01-01 08:00", tz="UTC"), pd.Timestamp("2024-01-01 20:00", tz="UTC")
    found = periods_of(at(pd.DatetimeIndex([morning, evening] * 200)), 100)
    sample = sampled(found)

    assert len(set(found.names)) == 2
    assert [part["rows"] for part in breakdown(sample)["period"].values()] == [200, 200]


def test_segments_whose_names_would_be_the_same_stay_separate() -> None:
    spec = FeaturesConfig(features=(Feature(name="plan", dtype="string"), Feature(name="n", dtype="float64")))
    rows = pd.DataFrame(
        {
            "plan": ["others"] * 10 + [f"p{i}" for i in range(30)] + [f"p{i}" for i in range(20)],
            # quartiles that are equal in their first four digits
            "n": 1e6 + np.arange(60.0),
        }
    )
    found = segments_of(rows, spec, "auto")

    for parts in found.values():
        assert len(set(parts.names)) == len(parts.names)
        assert parts.rows.sum() == 60


def test_periods_of_too_few_rows_are_reported_and_refuse_no_model() -> None:
    moments = pd.date_range("2020-01-01", periods=90, freq="30D", tz="UTC")
    sample = sampled(periods_of(at(moments), 100))

    (verdict,) = Stable().judge(Evidence("", sample=sample))

    assert verdict.passed
    assert "not judged: none of the 8 periods has 100 rows" in verdict.reason


def sampled(periods: Parts) -> Sample:
    rows = len(periods.code)
    churned = np.arange(rows) % 3 == 0
    score = np.where(churned, 0.7, 0.2)
    base = {"base_rate": np.full(rows, 1 / 3)}
    return Sample(np.arange(rows), churned.astype(float), score, 0.5, periods, segments={}, baselines=base)

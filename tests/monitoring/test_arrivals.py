"""Rows that arrive in each step, read from Parquet and judged."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from churn.settings import load_settings
from monitoring.activity import read_arrivals
from monitoring.checks.arrivals import check, follow
from monitoring.config import MonitoringConfig
from monitoring.findings import Checked
from monitoring.sources import Sources

AT = datetime(2026, 6, 1, tzinfo=UTC)
CONFIG = MonitoringConfig(every_days=7, segments=("country",), history=20)
WEEKS, CUSTOMERS = 20, 2_000


@pytest.fixture
def log() -> pd.DataFrame:
    """A fifth of the customers buys each week, in the evening."""
    rng = np.random.default_rng(0)
    rows = []
    for week in range(WEEKS):
        users = np.flatnonzero(rng.random(CUSTOMERS) < 0.2)
        hours = rng.choice([17, 18, 19, 20, 21], len(users)) + 24 * rng.integers(0, 7, len(users))
        start = pd.Timestamp(AT) - pd.Timedelta(days=7 * (week + 1))
        rows.append(
            pd.DataFrame(
                {
                    "user_id": [f"u{user:05d}" for user in users],
                    "timestamp": start + pd.to_timedelta(hours, unit="h"),
                    "amount": rng.lognormal(3, 0.8, len(users)),
                    "country": np.where(users % 4 == 0, "PL", "DE"),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def checked(log: pd.DataFrame, folder: Path) -> Checked:
    file = folder / "base-00000.parquet"
    log.assign(timestamp=log["timestamp"].dt.as_unit("us")).to_parquet(file, index=False)
    none = folder / "none"
    sources = Sources(
        load_settings().features, AT - timedelta(days=7), AT, [file], none, none, none, none, none
    )
    arrivals = read_arrivals(sources, CONFIG)
    assert arrivals is not None
    return check(follow(arrivals, CONFIG), CONFIG)


def last_week(log: pd.DataFrame) -> pd.Series:
    return log["timestamp"] >= pd.Timestamp(AT) - pd.Timedelta(days=7)


def test_without_a_fault_nothing_is_found(log: pd.DataFrame, tmp_path: Path) -> None:
    result = checked(log, tmp_path)
    assert [one.key for one in result.findings] == []
    values = {(one.name, one.subject): one for one in result.measurements}
    buyers = log.loc[last_week(log), "user_id"].nunique()
    assert values["arrivals_duplicates_share", "all"].rows == buyers
    returning = values["arrivals_more_share", "all"]
    assert returning.value * returning.rows == pytest.approx(buyers, abs=10)  # the rest are new


def test_each_fault_is_named(log: pd.DataFrame, tmp_path: Path) -> None:
    new = last_week(log)

    def found(changed: pd.DataFrame) -> set[str]:
        return {one.key for one in checked(changed, tmp_path).findings}

    def with_amounts(factor: float, rows: pd.Series) -> pd.DataFrame:
        return log.assign(amount=log["amount"].where(~rows, log["amount"] * factor))

    assert "amounts:amount" in found(with_amounts(100, new))
    assert "amounts:amount" in found(with_amounts(0.01, new))
    assert found(with_amounts(4.3, new & (log["country"] == "PL"))) == {"amounts:country=PL"}
    assert found(pd.concat([log, log[new]])) == {"duplicates:records"}
    slipped = log.assign(timestamp=log["timestamp"] - pd.to_timedelta(np.where(new, 7, 0), unit="h"))
    assert found(slipped) == {"time_zone:timestamp"}
    assert "customers_missing:records" in found(log[~new | (log.index % 50 == 0)])


def test_the_last_hour_before_the_end_belongs_to_the_step_and_later_rows_do_not(
    log: pd.DataFrame, tmp_path: Path
) -> None:
    later = log[last_week(log)].assign(timestamp=pd.Timestamp(AT), amount=1e9)
    assert checked(pd.concat([log, later]), tmp_path) == checked(log, tmp_path)

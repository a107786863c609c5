"""Changes of customers' features from one snapshot to the next, counted by hand."""

import numpy as np
import pandas as pd

from churn.settings import load_settings
from features.spec import FeaturesConfig
from monitoring.checks.transitions import changes, check, follow
from monitoring.config import MonitoringConfig

CONFIG = MonitoringConfig(min_rows=10)
SPEC = FeaturesConfig.model_validate(
    {
        "features": [
            {"name": "orders", "dtype": "int64", "default": 0, "sql": "count(*)"},
            {"name": "recent", "dtype": "int64", "default": 0, "sql": "count(*) filter (age_days <= 30)"},
            {"name": "spend", "dtype": "float64", "sql": "sum(amount)"},
            {"name": "plan", "dtype": "string", "sql": "any_value(plan)"},
        ]
    }
)


def frame(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=[f"u{number}" for number in range(len(next(iter(columns.values()))))])


def test_changes_are_those_of_customers_in_both_snapshots() -> None:
    before = frame(orders=[1, 2, 3, 4], recent=[1, 0, 1, 1], spend=[10.0, 20.0, None, 5.0], plan=list("aabb"))
    now = frame(
        orders=[1, 1, 0, 4], recent=[0, 0, 1, 1], spend=[None, 2000.0, 1.0, 5.0], plan=["a", None, "b", "b"]
    )
    now.loc["new"] = [9, 9, 9.0, "c"]
    counts = changes(before, now, SPEC, CONFIG).counts().set_index(["subject", "kind"])
    found = {key: (row["hits"], row["rows"]) for key, row in counts.iterrows()}
    assert found["spend", "newly_null"] == (1, 3)
    assert found["spend", "larger"] == (1, 2)  # of those who have a value in both
    assert found["orders", "decreased"] == (2, 4)
    assert found["orders", "newly_default"] == (1, 4)
    assert found["recent", "newly_default"] == (1, 3)
    assert found["plan", "newly_null"] == (1, 4)
    assert found["all", "unchanged"] == (1, 4)
    assert ("recent", "decreased") not in found  # a window forgets


def history(rng: np.random.Generator, snapshots: int) -> list[tuple[pd.Timestamp, pd.DataFrame]]:
    orders, moments = rng.poisson(3, 400) + 1, pd.date_range("2026-01-01", periods=snapshots, freq="14D")
    found = []
    for moment in moments:
        orders = orders + rng.poisson(0.2, 400)
        recent = rng.poisson(0.5, 400)
        rows = frame(orders=list(orders), recent=list(recent), spend=list(orders * 20.0), plan=["a"] * 400)
        found.append((moment, rows))
    return found


def names(snapshots: list[tuple[pd.Timestamp, pd.DataFrame]]) -> list[str]:
    checked = check(follow(snapshots, SPEC, CONFIG), SPEC, CONFIG)
    return sorted(finding.key for finding in checked.findings)


def test_a_fault_is_found_as_long_as_it_lasts() -> None:
    snapshots = history(np.random.default_rng(0), 10)
    assert names(snapshots[:7]) == []
    for number in (7, 8):
        moment, rows = snapshots[number]
        snapshots[number] = moment, rows.assign(spend=rows["spend"] * 100)
    assert names(snapshots[:8]) == ["unit_change:spend"]
    assert names(snapshots[:9]) == ["unit_change:spend"]
    assert names(snapshots[:10]) == []  # mended


def test_features_that_shrink_although_they_only_grew() -> None:
    snapshots = history(np.random.default_rng(1), 8)
    moment, rows = snapshots[-1]
    fewer = rows["orders"].where(np.arange(400) % 10 > 0, 1)
    snapshots[-1] = moment, rows.assign(orders=fewer, spend=fewer * 20.0)
    assert names(snapshots) == ["decrease:orders", "decrease:spend"]


def test_a_snapshot_that_is_a_copy() -> None:
    snapshots = history(np.random.default_rng(2), 8)
    snapshots[-1] = snapshots[-1][0], snapshots[-2][1]
    assert names(snapshots) == ["copied_snapshot:all"]


def test_nothing_to_compare_is_no_finding() -> None:
    assert names([]) == names(history(np.random.default_rng(3), 1)) == []


def test_the_shipped_spec_has_windows_and_features_that_only_grow() -> None:
    from monitoring.checks.transitions import reads_age

    windows = {feature.name for feature in load_settings().features.features if reads_age(feature)}
    assert {"orders_30d", "spend_90d", "recency_days"} <= windows
    assert not {"total_purchases", "total_spend", "gap_max_days"} & windows

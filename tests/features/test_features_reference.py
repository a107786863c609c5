"""Compares the shipped features and labels with a second implementation in pandas, customer by customer."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from features.build import build_features
from features.spec import FeaturesConfig
from support.feature_records import CONFIG, write_transactions

SPEC = FeaturesConfig.model_validate(
    yaml.safe_load(CONFIG.read_text()) | {"threads": 1, "horizon_days": 30, "eligible": None}
)
START = datetime(2020, 1, 1, tzinfo=UTC)
END = START + timedelta(days=500)
AS_OF = [START + timedelta(days=100), START + timedelta(days=460)]
US_A_DAY = 86_400_000_000


def reference(log: pd.DataFrame, as_of: datetime) -> pd.DataFrame:
    rows = []
    for user, all_of_them in log.sort_values("timestamp").groupby("user_id"):
        seen = all_of_them[all_of_them["timestamp"] < as_of]
        if seen.empty:
            continue
        age = np.array([(as_of - t) // timedelta(microseconds=1) for t in seen["timestamp"]]) / US_A_DAY
        gaps = np.array([d // timedelta(microseconds=1) for d in seen["timestamp"].diff()[1:]]) / US_A_DAY
        amount = seen["amount"].to_numpy()
        after = all_of_them["timestamp"]
        rows.append(
            {
                "user_id": user,
                "total_purchases": len(seen),
                "avg_purchase_amount": amount.mean(),
                "tenure_months": age.max() / 30.4375,
                "recency_days": age.min(),
                "active_days": len({t.date() for t in seen["timestamp"]}),
                "total_spend": amount.sum(),
                "max_purchase_amount": amount.max(),
                "total_quantity": seen["quantity"].sum(),
                **{f"orders_{d}d": int((age <= d).sum()) for d in (14, 30, 60, 90, 180, 365)},
                **{f"spend_{d}d": amount[age <= d].sum() for d in (30, 90, 180)},
                "gap_mean_days": gaps.mean() if len(gaps) else np.nan,
                "gap_std_days": gaps.std(ddof=1) if len(gaps) > 1 else np.nan,
                "gap_max_days": gaps.max() if len(gaps) else np.nan,
                "recency_to_gap": age.min() / (max(gaps.mean(), 1) if len(gaps) else 1),
                "churned": int(not ((after >= as_of) & (after < as_of + SPEC.horizon)).any()),
            }
        )
    names = ["user_id", *(f.name for f in SPEC.features), "churned"]
    return pd.DataFrame(rows, columns=names).sort_values("user_id", ignore_index=True)


# days around which something begins or ends: as_of itself, the horizon's end, a window's edge; and any time
edges = [0, 10, 70, 86, 100, 130, 280, 400, 430, 446, 460, 490]
moments = st.one_of(
    st.sampled_from(edges).map(lambda day: day * US_A_DAY),
    st.tuples(st.sampled_from(edges[1:]), st.sampled_from([-1, 1])).map(lambda e: e[0] * US_A_DAY + e[1]),
    st.integers(0, 499 * US_A_DAY),
)
purchase = st.tuples(
    st.integers(0, 3), moments, st.integers(0, 100_000).map(lambda cents: cents / 100), st.integers(1, 9)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(purchase, min_size=1, max_size=40))
@example([(0, 100 * US_A_DAY, 1.0, 1)])  # first purchase exactly at as_of: not known yet
@example([(0, 5, 1.0, 1), (0, 5, 2.5, 1), (1, 99 * US_A_DAY, 3.0, 2)])  # the same moment; a single purchase
@example([(0, 0, 1.0, 1), (0, 130 * US_A_DAY, 1.0, 1)])  # a purchase at the end of the horizon: too late
def test_duckdb_agrees_with_pandas(purchases):
    purchases = [(9, 0, 1.0, 1), *purchases]  # one customer is known from the first day on
    log = pd.DataFrame(purchases, columns=["user", "us", "amount", "quantity"])
    log["user_id"] = log["user"].map(lambda user: f"u_{user:032x}")
    log["timestamp"] = pd.Timestamp(START) + pd.to_timedelta(log["us"], unit="us")
    log["quantity"] = log["quantity"].astype(float)
    with tempfile.TemporaryDirectory() as folder:
        files = write_transactions(Path(folder), log, start=START, end=END)
        build_features(SPEC, files, as_of=AS_OF)
        built = pd.read_parquet(files.snapshots).merge(pd.read_parquet(files.labels), "left")
    for as_of in AS_OF:
        at_moment = built[built["event_timestamp"] == as_of].reset_index(drop=True)
        expected = reference(log, as_of)
        assert at_moment["user_id"].tolist() == expected["user_id"].tolist()
        for name in expected.columns[1:]:
            ours, theirs = (t[name].to_numpy(dtype=float) for t in (at_moment, expected))
            # sums in another order differ in the last bits; the variance of equal gaps is the square of that
            assert ours == pytest.approx(theirs, rel=1e-11, abs=1e-6, nan_ok=True), name

"""Purchases, returns and departed customers: features, labels and eligibility, compared with pandas.

The log is made: orders, refunds, days on which much happens at the same moment, customers with returns only,
and records in several parts, as a base and its deliveries leave them.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from core.workspace import Workspace
from features import log as log_module
from features.build import build_features
from features.spec import FeaturesConfig
from support.feature_records import CONFIG, records_part, write_manifest

START = datetime(2020, 1, 1, tzinfo=UTC)
END = START + timedelta(days=900)
AS_OF = [START + timedelta(days=days) for days in (120, 400, 730)]
US_A_DAY = 86_400_000_000
OF_RETURNS = [
    {"name": "returns", "dtype": "int64", "default": -1, "sql": "count(*)", "over": "returns"},
    {"name": "refunded", "dtype": "float64", "sql": "-sum(amount)", "over": "returns"},
    {"name": "days_since_return", "dtype": "float64", "sql": "min(age_days)", "over": "returns"},
    {"name": "pause_of_returns", "dtype": "float64", "sql": "avg(gap_days)", "over": "returns"},
    {"name": "net_spend", "dtype": "float64", "default": 0.0, "sql": "sum(amount)", "over": "all"},
    {"name": "pause_of_all", "dtype": "float64", "sql": "max(gap_days)", "over": "all"},
    {"name": "return_share", "dtype": "float64", "sql": "avg(is_return::int)", "over": "all"},
    {"name": "shops", "dtype": "int64", "default": 0, "sql": 'count(distinct "Shop name")', "over": "all"},
    {"name": "last_shop", "dtype": "string", "sql": 'last("Shop name" order by timestamp)'},
]
SHIPPED = yaml.safe_load(CONFIG.read_text()) | {"eligible": None}


def spec_with(**settings) -> FeaturesConfig:
    features = [*SHIPPED["features"], *OF_RETURNS]
    return FeaturesConfig.model_validate(SHIPPED | {"features": features, "threads": 2} | settings)


def made_log(customers: int = 1_400, seed: int = 3) -> pd.DataFrame:
    """Unsorted rows, as in a source."""
    draw = np.random.default_rng(seed)
    rows = []
    for customer in range(customers):
        begins = draw.integers(0, 800)
        until = min(900, begins + draw.exponential(250))
        day = float(begins)
        while day < until:
            # hours repeat, and so do times of a customer
            us = int(day) * US_A_DAY + int(draw.integers(0, 3)) * US_A_DAY // 4
            returned = draw.random() < 0.12 or customer % 97 == 0  # some customers have only returns
            amount = float(draw.integers(-9_000, -100) if returned else draw.integers(100, 9_000)) / 100
            rows.append((customer, us, amount, -1.0 if returned else float(draw.integers(1, 5)), returned))
            if draw.random() < 0.08:
                rows.append((*rows[-1][:2], amount * 2, *rows[-1][3:]))
            day += draw.exponential(30) if draw.random() < 0.9 else draw.exponential(300)
    log = pd.DataFrame(rows, columns=["customer", "us", "amount", "quantity", "is_return"])
    log["user_id"] = log["customer"].map(lambda customer: f"u_{customer * 7_919 % 99_991:032x}")
    log["timestamp"] = pd.Timestamp(START) + pd.to_timedelta(log["us"], unit="us")
    log["Shop name"] = draw.choice(["web", "Web", "store"], len(log))
    log = log[log["us"] < 900 * US_A_DAY].sample(frac=1, random_state=seed)
    return log.drop(columns=["customer", "us"]).reset_index(drop=True)


def write_in_parts(root, log: pd.DataFrame, parts: list[pd.DataFrame]) -> Workspace:
    files = Workspace(root)
    for number, part in enumerate(parts):
        ordered = part.sort_values(["user_id", "timestamp"], kind="stable")
        table = pa.Table.from_pandas(ordered, preserve_index=False)
        place = table.schema.get_field_index("timestamp")
        table = table.set_column(place, "timestamp", table["timestamp"].cast(pa.timestamp("us", tz="UTC")))
        if number % 2:  # a delivery may have its columns in another order
            table = table.select(list(reversed(table.column_names)))
        pq.write_table(table, records_part(files, f"part-{number:03}.parquet"))
    write_manifest(files, "transactions", len(log), START, END)
    return files


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    return made_log()


@pytest.fixture(scope="module")
def parts(log) -> list[pd.DataFrame]:
    """A base, and nineteen deliveries of random rows; rows of equal time are in the order of their parts."""
    part = np.where(
        np.random.default_rng(8).random(len(log)) < 0.6, 0, np.random.default_rng(9).integers(1, 20, len(log))
    )
    return [log[part == number] for number in range(20)]


def reference(rows: pd.DataFrame, as_of: datetime, horizon: timedelta, returns_count: bool) -> dict | None:
    """One customer's features and label; `rows` by time, equal times in their order. None: not known yet."""
    seen = rows[rows["timestamp"] < as_of]
    bought, returned = seen[~seen["is_return"]], seen[seen["is_return"]]
    if bought.empty:
        return None

    def ages(part):
        return np.array([(as_of - t) // timedelta(microseconds=1) for t in part["timestamp"]]) / US_A_DAY

    def gaps(part):
        return np.array([d // timedelta(microseconds=1) for d in part["timestamp"].diff()[1:]]) / US_A_DAY

    age, gap, amount = ages(bought), gaps(bought), bought["amount"].to_numpy()
    life = rows if returns_count else rows[~rows["is_return"]]
    after = (life["timestamp"] >= as_of) & (life["timestamp"] < as_of + horizon)
    last = bought["timestamp"].max()
    return {
        "total_purchases": len(bought),
        "avg_purchase_amount": amount.mean(),
        "tenure_months": age.max() / 30.4375,
        "recency_days": age.min(),
        "active_days": len({t.date() for t in bought["timestamp"]}),
        "total_spend": amount.sum(),
        "max_purchase_amount": amount.max(),
        "total_quantity": bought["quantity"].sum(),
        **{f"orders_{d}d": int((age <= d).sum()) for d in (14, 30, 60, 90, 180, 365)},
        **{f"spend_{d}d": amount[age <= d].sum() for d in (30, 90, 180)},
        "gap_mean_days": gap.mean() if len(gap) else np.nan,
        "gap_std_days": gap.std(ddof=1) if len(gap) > 1 else np.nan,
        "gap_max_days": gap.max() if len(gap) else np.nan,
        "recency_to_gap": age.min() / (max(gap.mean(), 1) if len(gap) else 1),
        "returns": len(returned),
        "refunded": -returned["amount"].sum() if len(returned) else np.nan,
        "days_since_return": ages(returned).min() if len(returned) else np.nan,
        "pause_of_returns": gaps(returned).mean() if len(returned) > 1 else np.nan,
        "net_spend": seen["amount"].sum(),
        "pause_of_all": gaps(seen).max() if len(seen) > 1 else np.nan,
        "return_share": seen["is_return"].mean(),
        "shops": seen["Shop name"].nunique(),
        "last_shop": set(bought.loc[bought["timestamp"] == last, "Shop name"]),
        "churned": int(not after.any()),
    }


@pytest.mark.parametrize(
    ("eligible", "returns_count"),
    [(None, False), ("recency_days <= 200 and not (returns > 3 or max_purchase_amount < 10)", True)],
)
def test_a_thousand_customers_agree_with_pandas(tmp_path, log, parts, monkeypatch, eligible, returns_count):
    monkeypatch.setattr(log_module, "RANGE_ROWS", 700)  # some twenty ranges of customers
    spec = spec_with(eligible=eligible, returns_count_as_life=returns_count)
    files = write_in_parts(tmp_path, log, parts)
    record = build_features(spec, files, as_of=AS_OF)
    built = pd.read_parquet(files.snapshots).merge(pd.read_parquet(files.labels), "left")

    ordered = pd.concat(parts).sort_values(["user_id", "timestamp"], kind="stable")
    drawn = np.random.default_rng(0).choice(ordered["user_id"].unique(), 1_000, replace=False)
    of_customer = dict(list(ordered[ordered["user_id"].isin(drawn)].groupby("user_id")))
    compared = excluded = 0
    for as_of in AS_OF:
        ours = built[built["event_timestamp"] == as_of].set_index("user_id")
        for user, rows in of_customer.items():
            expected = reference(rows, as_of, spec.horizon, returns_count)
            if expected is not None and eligible is not None:
                stays = expected["recency_days"] <= 200 and not (
                    expected["returns"] > 3 or expected["max_purchase_amount"] < 10
                )
                excluded += not stays
                expected = expected if stays else None
            if expected is None:
                assert user not in ours.index
                continue
            found = ours.loc[user]
            assert found["last_shop"] in expected.pop("last_shop")  # any of those at the last moment
            assert found[list(expected)].astype(float).to_dict() == pytest.approx(
                expected, rel=1e-11, abs=1e-6, nan_ok=True
            ), (user, as_of)
            compared += 1
    assert compared > 500
    assert (excluded > 100) == (eligible is not None)
    assert (record["eligible"], record["rows"]) == (eligible, len(built))
    if eligible is not None:
        unrestricted = build_features(spec_with(returns_count_as_life=True), files, as_of=AS_OF)
        assert record["not_eligible_rows"] == unrestricted["rows"] - record["rows"]


def test_bytes_depend_on_the_rows_and_not_on_their_parts(tmp_path, log, parts, monkeypatch):
    in_order = pd.concat(parts)
    build_features(
        spec_with(threads=1), one := write_in_parts(tmp_path / "one", log, [in_order]), as_of=AS_OF
    )
    monkeypatch.setattr(log_module, "RANGE_ROWS", 1_000)
    build_features(spec_with(threads=3), many := write_in_parts(tmp_path / "many", log, parts), as_of=AS_OF)
    assert one.snapshots.read_bytes() == many.snapshots.read_bytes()
    assert one.labels.read_bytes() == many.labels.read_bytes()


def test_a_range_opens_only_the_parts_with_its_customers(tmp_path, log):
    """Base parts with ranges of customers, as ingest writes them, need no merge."""
    users = sorted(log["user_id"].unique())
    halves = [log[log["user_id"] < users[700]], log[log["user_id"] >= users[700]]]
    files = write_in_parts(tmp_path, log, halves)
    opened = log_module.open_log(spec_with(), sorted(files.records.iterdir()))
    low = log_module.Range(0, None, users[700])
    high = log_module.Range(1, users[700], None)
    both = log_module.Range(2, users[10], users[900])
    assert [[part.holds(customers) for part in opened.parts] for customers in (low, high, both)] == [
        [True, False],
        [False, True],
        [True, True],
    ]


def test_a_refund_a_customer_with_only_returns_and_a_departed_one(tmp_path):
    """The smallest log with all three, with expected values by hand."""
    day = timedelta(days=1)
    rows = [
        ("u_buyer", START, 50.0, False),
        ("u_buyer", START + 95 * day, 20.0, False),
        ("u_dead", START, 10.0, False),
        ("u_refunded", START, 40.0, False),
        ("u_refunded", START + 95 * day, -40.0, True),
        ("u_returns_only", START + 1 * day, -5.0, True),
    ]
    log = pd.DataFrame(rows, columns=["user_id", "timestamp", "amount", "is_return"])
    log["timestamp"] = pd.to_datetime(log["timestamp"], utc=True).astype("datetime64[us, UTC]")
    log = log.assign(quantity=1.0, **{"Shop name": "web"})
    files = write_in_parts(tmp_path, log, [log])

    def labels(**settings) -> dict[str, int]:
        build_features(spec_with(**settings), files, as_of=[START + 90 * day])
        return pd.read_parquet(files.labels).set_index("user_id")["churned"].to_dict()

    assert labels() == {"u_buyer": 0, "u_dead": 1, "u_refunded": 1}
    assert labels(returns_count_as_life=True) == {"u_buyer": 0, "u_dead": 1, "u_refunded": 0}
    build_features(spec_with(eligible="recency_days <= 60"), files, as_of=[START + 120 * day])
    found = pd.read_parquet(files.snapshots)
    assert found["user_id"].tolist() == ["u_buyer"]  # a refund does not make a customer eligible
    assert found["recency_days"].tolist() == [25.0]

"""Metrics on matured labels: against scikit-learn, against drawn customers, and on rows that allow none."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import NormalDist

import duckdb
import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from churn.settings import load_settings
from core.errors import MonitoringError
from features.labels import with_labels
from monitoring.config import MonitoringConfig
from monitoring.findings import Measurement
from monitoring.performance.check import performance
from monitoring.performance.inputs import PerformanceInputs, log_rows
from monitoring.performance.intervals import METRICS, RESAMPLES, Estimate, Placements, Scores, Total, measured
from training.config import DecisionConfig
from training.decision_value import expected_profit
from training.evaluate.bootstrap import Resampling, resampled
from training.learn.metrics import ECE_BINS, calibration_bins, evaluate, log_losses

SPEC = load_settings().features
DECISION = DecisionConfig(customer_value=100.0)
START = datetime(2026, 1, 1, tzinfo=UTC)
HORIZON = timedelta(days=SPEC.horizon_days)
CUSTOMERS = 600


def scored(seed: int = 0, customers: int = 500, rows: int = 3) -> Scores:
    """Customers with several rows and a level of their own."""
    random = np.random.default_rng(seed)
    customer = np.repeat(np.arange(customers), rows)
    level = np.repeat(random.normal(size=customers), rows)
    score = np.round(1 / (1 + np.exp(-level - random.normal(size=len(level)))), 2)
    churned = (random.random(len(score)) < 1 / (1 + np.exp(-1.5 * level))).astype(np.int64)
    return Scores(customer, np.clip(score, 0.01, 0.99), churned)


def of_rows(scores: Scores, how: Resampling = RESAMPLES) -> dict[str, Estimate]:
    """The metrics of rows that are in memory."""
    return measured([scores.sorted()], Total.of(scores), DECISION, how=how)


def world(seed: int = 0) -> PerformanceInputs:
    """Customers who are scored each month for five months by two versions; activity of ten months."""
    random = np.random.default_rng(seed)
    rate = random.gamma(0.8, 1 / 60, CUSTOMERS)
    users = [f"u{number}" for number in range(CUSTOMERS)]
    scores, activity = [], []
    for month in range(5):
        moment = START + timedelta(days=30 * month)
        frame = pd.DataFrame(
            {"user_id": users, "event_timestamp": moment, "version": "1" if month < 4 else "2",
             "score": np.exp(-90 * rate)}
        )  # fmt: skip
        scores.append(frame.assign(**dict.fromkeys(SPEC.numeric, 1.0)))
    for user, one in zip(users, rate, strict=True):
        days = np.cumsum(random.exponential(1 / one, 40))
        activity += [(user, START + timedelta(days=float(day))) for day in days[days < 300]]
    log = log_rows(pd.concat(scores), SPEC.numeric)
    log["features_at"] = pd.to_datetime(log["features_at"], utc=True)
    records = pd.DataFrame(activity, columns=["user_id", "timestamp"])
    at = START + timedelta(days=120) + HORIZON
    return PerformanceInputs(at, log, records, at, "2", SPEC, DECISION)


def of(found: list[Measurement], name: str, version: str, subject: str = "all") -> Measurement:
    [one] = [m for m in found if (m.name, m.version, m.subject) == (name, version, subject)]
    return one


def test_the_metrics_are_those_of_the_gates() -> None:
    scores = scored()
    found, expected = of_rows(scores), evaluate(scores.churned, scores.score)
    for name, other in (("log_loss_nats", "log_loss"), ("auroc", "auroc"), ("ece", "ece"),
                        ("churn_rate", "base_rate")):  # fmt: skip
        assert found[name].value == pytest.approx(expected[other], abs=1e-12)


def test_placement_values_are_the_shares_of_pairs() -> None:
    scores = scored(1, customers=40).sorted()
    p, y = scores.score, scores.churned
    placed, _ = Placements(Total.of(scores)).add(p, y)
    for row, one in enumerate(placed):
        others = p[y != y[row]]
        smaller = np.mean((others < p[row]) + 0.5 * (others == p[row]))
        assert one == pytest.approx(smaller if y[row] else 1 - smaller)


def in_memory(scores: Scores, how: Resampling) -> dict[str, Estimate]:
    """The same metrics with ranks and a quantile of all rows at once."""
    p, y, customer = scores.score, scores.churned.astype(np.float64), scores.customer
    ranks, within = rankdata(p), np.empty(len(p))
    for one in (0, 1):
        within[y == one] = rankdata(p[y == one])
    smaller = (ranks - within) / np.where(y == 1, (y == 0).sum(), (y == 1).sum())
    placed = np.where(y == 1, smaller, 1 - smaller)
    top = (p >= np.quantile(p, 0.9)).astype(np.float64)
    profit = np.where(expected_profit(p, DECISION) > 0, expected_profit(y, DECISION), 0.0)
    columns = [
        np.ones(len(p)),
        y,
        log_losses(scores.churned, p),
        placed * y,
        placed * (1 - y),
        top,
        top * y,
        profit,
    ]
    columns += [(p - y) * (calibration_bins(p) == one) for one in range(ECE_BINS)]
    sums = np.column_stack([np.bincount(customer, column, customer.max() + 1) for column in columns])
    found = {}
    for name, statistic in METRICS.items():
        value, draws = float(statistic(sums.sum(axis=0))), statistic(resampled(sums, how))
        low, high = np.nanquantile(2 * draws - value if name == "auroc" else draws, [0.025, 0.975])
        if name == "ece":
            reach = NormalDist().inv_cdf(0.975) * float(np.std(draws))
            low, high = max(value - reach, 0.0), value + reach
        found[name] = Estimate(value, low, high)
    return found


@pytest.mark.parametrize("batch", [1, 7, 100, 5000])
@pytest.mark.parametrize("seed", [4, 5])
def test_batches_give_the_numbers_of_all_rows_in_memory(seed: int, batch: int) -> None:
    """Scores have two digits, so that ties reach over several batches, also at the quantile of the lift."""
    scores, how = scored(seed, customers=331), Resampling(resamples=50)
    rows = scores.sorted()
    batches = [rows.rows(slice(first, first + batch)) for first in range(0, len(rows.score), batch)]
    found = measured(batches, Total.of(scores), DECISION, how=how)
    for name, expected in in_memory(scores, how).items():
        assert vars(found[name]) == pytest.approx(vars(expected), rel=1e-12, abs=1e-12), name


def test_the_interval_of_auroc_is_that_of_drawn_customers() -> None:
    """scikit-learn's AUROC of each of 600 draws of customers, without the expansion."""
    scores = scored(2, customers=300)
    random = np.random.default_rng(0)
    rows = np.arange(len(scores.score)).reshape(300, 3)
    drawn = [rows[random.integers(0, 300, 300)].ravel() for _ in range(600)]
    low, high = np.quantile(
        [roc_auc_score(scores.churned[d], scores.score[d]) for d in drawn], [0.025, 0.975]
    )
    found = of_rows(scores, Resampling(resamples=1000))["auroc"]
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.006)


def test_profit_counts_offers_that_are_expected_to_pay() -> None:
    scores = Scores(np.arange(3), np.array([0.9, 0.9, 0.1]), np.array([1, 0, 1]))
    # a saved customer: .3 * (100 - 10) - 1; one who stays anyway: -10 - 1; no offer to the third
    assert of_rows(scores)["profit"].value == pytest.approx((26 - 11) / 3)


def test_one_class_and_no_rows_are_nan_and_no_error() -> None:
    scores = replace(scored(3), churned=np.ones(1500, dtype=np.int64))
    found = of_rows(scores)
    assert np.isnan(found["auroc"].value) and np.isnan(found["lift"].value)
    assert np.isfinite(found["log_loss_nats"].value) and found["churn_rate"].value == 1
    nothing = Scores(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
    assert all(np.isnan(one.value) for one in of_rows(nothing).values())


def test_labels_are_those_of_the_features_and_only_after_the_horizon() -> None:
    inputs = world()
    found = list(performance(inputs, MonitoringConfig()).measurements)
    moment = START + timedelta(days=120)  # of version 2: its horizon ends exactly at the check
    connection = duckdb.connect()
    log = inputs.activity.rename(columns={"user_id": "user_id#", "timestamp": "timestamp#"})
    log["timestamp#"] = log["timestamp#"].dt.tz_localize(None)
    first = pd.DataFrame(
        {"user_id#": inputs.predictions["user_id"].unique(), "timestamp#": pd.Timestamp("2025-12-31")}
    )
    log = pd.concat([first, log])
    connection.register("log", log)
    customers = '(SELECT DISTINCT "user_id#" AS user_id FROM log)'
    labels = connection.execute(with_labels(customers, "log", moment, HORIZON)).df()
    assert of(found, "late_churn_rate", "2").value == pytest.approx(labels["churned"].mean(), abs=1e-12)
    assert of(found, "late_churn_rate", "2").rows == CUSTOMERS
    early = replace(inputs, at=inputs.at - timedelta(seconds=1))
    found = list(performance(early, MonitoringConfig()).measurements)
    assert {one.version for one in found if one.name == "late_churn_rate"} == {"1"}


def test_repeated_cold_and_what_if_predictions_do_not_count() -> None:
    inputs = world()
    log = inputs.predictions.assign(status="ok", overridden=[[] for _ in range(len(inputs.predictions))])
    noise = log.assign(score=0.001)
    more = [log, log.head(300), noise.assign(status="unknown"),
            noise.assign(overridden=[["recency_days"] for _ in range(len(noise))])]  # fmt: skip
    again = performance(replace(inputs, predictions=pd.concat(more)), MonitoringConfig())
    assert repr(again) == repr(performance(inputs, MonitoringConfig()))  # NaN is not equal to itself


def test_segments_are_measured_where_they_have_enough_rows() -> None:
    inputs = world()
    log = inputs.predictions.copy()
    log["feature_orders_30d"] = np.where(np.arange(len(log)) % 10 == 0, 7, 1)
    config = MonitoringConfig(segments=("orders_30d", "not_a_feature"), min_rows=100)
    found = list(performance(replace(inputs, predictions=log), config).measurements)
    assert np.isnan(of(found, "late_auroc", "2", "orders_30d=7").value)
    assert of(found, "late_auroc", "2", "orders_30d=7").rows == CUSTOMERS // 10
    assert of(found, "late_auroc", "2", "orders_30d=1").value > 0.5


def test_a_log_without_a_column_is_refused_by_name() -> None:
    inputs = world()
    with pytest.raises(MonitoringError, match="no column score"):
        performance(replace(inputs, predictions=inputs.predictions.drop(columns="score")), MonitoringConfig())


def test_a_log_in_batches_has_the_numbers_of_one_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels by pandas, metrics by numpy on all rows; batches have 2,048 of the 10,000 rows."""
    monkeypatch.setattr("monitoring.performance.labelled.BATCH_VECTORS", 1)
    random = np.random.default_rng(6)
    users = pd.Series([f"u{number}" for number in range(5000)])
    moments = [START, START + timedelta(days=14)]
    rows = pd.concat([pd.DataFrame({"user_id": users, "event_timestamp": one}) for one in moments])
    rows = rows.assign(version="1", score=np.round(random.beta(4, 2, len(rows)), 3).clip(0.001, 0.999))
    rows = rows.assign(**dict.fromkeys(SPEC.numeric, 1.0))
    days = pd.to_timedelta(random.exponential(120, len(users)), unit="D")
    records = pd.DataFrame({"user_id": users, "timestamp": pd.Timestamp(START) + days})
    at = moments[-1] + HORIZON
    inputs = PerformanceInputs(
        at, log_rows(rows, SPEC.numeric), records[records["timestamp"] < at], at, "1", SPEC, DECISION
    )
    found = list(performance(inputs, MonitoringConfig()).measurements)
    joined = rows.merge(records[records["timestamp"] < at], on="user_id", how="left")
    since = joined["timestamp"] - joined["event_timestamp"]
    churned = (~((since >= pd.Timedelta(0)) & (since < HORIZON))).astype(np.int64)
    connection = duckdb.connect()
    connection.register("joined", joined[["user_id"]].assign(place=range(len(joined))))
    hashes = connection.execute("SELECT hash(user_id) FROM joined ORDER BY place").fetchnumpy()
    _, customer = np.unique(next(iter(hashes.values())), return_inverse=True)
    expected = in_memory(
        Scores(customer.astype(np.int64), joined["score"].to_numpy(), churned.to_numpy()), RESAMPLES
    )
    for name, one in expected.items():
        measurement = of(found, f"late_{name}", "1")
        numbers = (measurement.value, measurement.low, measurement.high)
        assert numbers == pytest.approx((one.value, one.low, one.high), rel=1e-12, abs=1e-12), name

"""Evidence over overlapping and exceptional checks, and the checks of a whole history on made customers."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from churn.settings import load_settings
from monitoring.change import evidence_of_change
from monitoring.config import MonitoringConfig
from monitoring.findings import Cause, Monitored
from monitoring.performance.avoidable import CALENDAR, Steps
from monitoring.performance.check import collect_performance, judge_performance, performance
from monitoring.performance.inputs import PerformanceInputs, log_rows
from monitoring.performance.robust import evidence_of_streams, robust
from training.config import DecisionConfig

SPEC = load_settings().features.model_copy(
    update={"features": tuple(f for f in load_settings().features.features if f.name == "recency_days"),
            "derived": (), "eligible": None}
)  # fmt: skip
CONFIG = MonitoringConfig()
CUSTOMERS, DAYS = 4000, 420


def test_a_truncated_e_value_is_one_for_ordinary_and_exceptional_checks_together() -> None:
    log_e = np.array([np.log(0.5), np.log(1.5)])  # mean 1 in an ordinary check
    most, share = 3.0, 0.02
    ordinary = np.mean([np.exp(robust(one, most, share)) for one in log_e])
    exceptional = np.exp(robust(1e9, most, share))
    assert (1 - share) * ordinary + share * exceptional <= 1 + 1e-12
    assert exceptional > 1


def test_each_stream_is_a_history_and_the_largest_counts() -> None:
    values = {3: 0.2, 4: 2.0, 6: 0.1, 7: 3.0, 9: -0.4}
    of_one = evidence_of_change([2.0, 3.0])[-1]
    assert evidence_of_streams(values, 3) == pytest.approx(of_one - np.log(3))
    assert evidence_of_streams(values, 1) == pytest.approx(evidence_of_change([0.2, 2.0, 0.1, 3.0, -0.4])[-1])
    assert evidence_of_streams({}, 3) == 0


def test_overlapping_outcomes_with_shared_shocks_cross_in_less_than_alpha_of_histories() -> None:
    """Three periods overlap in each check; shocks of a period are shared, one in fifty is extreme.

    Each check bets on the mean of its three periods' noise, at unit variance. 1,000 histories of 24 checks.
    """
    random = np.random.default_rng(0)
    alpha, histories, checks = 0.05, 1000, 24
    periods = random.normal(size=(histories, checks + 2))
    z = (periods[:, :-2] + periods[:, 1:-1] + periods[:, 2:]) / np.sqrt(3)
    extreme = random.random((histories, checks)) < 0.02
    log_e = np.where(extreme, 50.0, 0.8 * z - 0.8**2 / 2)
    crossed = 0
    for history in log_e:
        used = {number: robust(one, 3.0, 0.02) for number, one in enumerate(history)}
        crossed += any(
            evidence_of_streams({n: used[n] for n in range(end)}, 3) >= np.log(1 / alpha)
            for end in range(1, checks + 1)
        )
    assert crossed / histories <= alpha


def test_a_run_at_any_time_evaluates_the_newest_complete_step() -> None:
    kind = Steps("early", 14, 14)
    end = kind.end(1000)
    assert kind.number(end) == kind.number(end + timedelta(days=13, hours=23)) == 1000
    assert kind.number(end - timedelta(seconds=1)) == 999
    assert CALENDAR.weekday() == 0
    assert Steps("late", 90, 30).streams == 3


def made(change: float | None, seed: int = 0) -> PerformanceInputs:
    """Customers of a constant rate each; from day `change` on, 60 % have that of the opposite customer."""
    random = np.random.default_rng(seed)
    rate = np.sort(random.gamma(0.7, 1 / 40, CUSTOMERS)) + 1e-4
    users = np.array([f"u{number}" for number in range(CUSTOMERS)])
    swapped = random.random(CUSTOMERS) < 0.6
    rows = []
    for first, last in ((0.0, change or DAYS), (change or DAYS, DAYS)):
        used = rate if first == 0 else np.where(swapped, rate[::-1], rate)
        count = random.poisson(used * (last - first))
        who = np.repeat(users, count)
        rows.append(pd.DataFrame({"user_id": who, "day": random.uniform(first, last, len(who))}))
    start = CALENDAR + timedelta(days=14 * 1400)
    frames = [
        pd.DataFrame({"user_id": users, "event_timestamp": pd.Timestamp(start + timedelta(days=day)),
                      "version": "7", "score": np.exp(-90 * rate), "recency_days": 1 / rate})
        for day in range(0, DAYS, 14)
    ]  # fmt: skip
    activity = pd.concat(rows)
    activity["timestamp"] = pd.Timestamp(start) + pd.to_timedelta(activity.pop("day"), unit="D")
    log = log_rows(pd.concat(frames), ("recency_days",))
    at = datetime(2100, 1, 1, tzinfo=UTC)
    return PerformanceInputs(at, log, activity, at, "7", SPEC, DecisionConfig(customer_value=100.0))


def followed(inputs: PerformanceInputs, days: list[int]) -> list[Monitored]:
    start = CALENDAR + timedelta(days=14 * 1400)
    runs: list[Monitored] = []
    for day in days:
        at = start + timedelta(days=day)
        checked = performance(replace(inputs, at=at, known_until=at), CONFIG, runs)
        runs.append(Monitored("m", at, at, "7", checked, ""))
    return runs


def test_a_change_is_a_finding_within_45_days_and_makes_the_estimate_untrusted() -> None:
    runs = followed(made(change=200.0), list(range(182, 253, 14)))
    found = [run for run in runs if any(one.check == "early_avoidable_loss" for one in run.checked.findings)]
    assert (found[0].at - (CALENDAR + timedelta(days=14 * 1400 + 200))).days <= 45
    [finding] = [one for one in found[0].checked.findings if one.check == "early_avoidable_loss"]
    assert finding.cause is Cause.HARM and finding.numbers["mean_nats"] > finding.numbers["tolerance_nats"]
    marks = {one.name: one.value for one in found[0].checked.measurements}
    assert marks["estimate_untrusted"] == marks["estimate_concept_change"] == 1


def test_without_a_change_there_is_no_finding_and_the_estimate_comes_true() -> None:
    runs = followed(made(change=None), [182, 210, 238, 266, 300])
    assert not any(run.checked.findings for run in runs)
    marks = {one.name: one.value for one in runs[0].checked.measurements}
    assert marks["estimate_untrusted"] == 0
    graded = {one.name: one.value for one in runs[4].checked.measurements if "covered" in one.name}
    assert graded["estimate_covered_log_loss_nats"] == graded["estimate_covered_auroc"] == 1


def test_the_judgement_is_derived_again_from_the_tables() -> None:
    inputs = made(change=None)
    at = CALENDAR + timedelta(days=14 * 1400 + 266)
    inputs = replace(inputs, at=at, known_until=at)
    tables = collect_performance(inputs, CONFIG)
    assert repr(judge_performance(tables, CONFIG)) == repr(performance(inputs, CONFIG))
    assert not any("user" in name or "customer" in name for table in tables.values() for name in table)


def test_a_version_without_predictions_is_measured_as_nothing() -> None:
    inputs = replace(made(change=None), version="8")
    at = CALENDAR + timedelta(days=14 * 1400 + 266)
    checked = performance(replace(inputs, at=at, known_until=at), CONFIG)
    assert not checked.findings
    marks = {one.name: one.value for one in checked.measurements if one.version == "8"}
    assert marks["estimate_few_rows"] == 1 and np.isnan(marks["early_avoidable_nats"])

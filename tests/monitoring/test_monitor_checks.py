"""Checks of columns, ages, serving, the past and vectors: judged from counts."""

from datetime import UTC, datetime

import pandas as pd
import pytest

from monitoring.checks import columns, past, served, skew, staleness
from monitoring.config import MonitoringConfig
from monitoring.findings import Cause

CONFIG = MonitoringConfig()
AT = datetime(2026, 6, 1, tzinfo=UTC)


def test_columns_that_are_missing_empty_or_constant_are_findings() -> None:
    reference = pd.DataFrame({name: range(100) for name in ("gone", "empty", "stuck", "fine", "never")})
    reference["never"] = float("nan")
    window = reference.assign(empty=float("nan"), stuck=0).drop(columns="gone")
    found = columns.check(columns.count(list(reference), reference, window), CONFIG).findings
    assert [one.key for one in found] == [
        "column_missing:gone",
        "column_empty:empty",
        "column_constant:stuck",
    ]


def test_without_training_rows_a_constant_column_is_not_blamed() -> None:
    window = pd.DataFrame({"plan": ["a"] * 100})
    assert not columns.check(columns.count(["plan"], None, window), CONFIG).findings
    assert not columns.check(columns.EMPTY, CONFIG).findings


def ages(**days: float | None) -> pd.DataFrame:
    newest = [pd.NaT if age is None else pd.Timestamp(AT) - pd.Timedelta(days=age) for age in days.values()]
    return pd.DataFrame({"source": list(days), "newest": pd.to_datetime(newest, utc=True), "rows": 5})


def test_old_and_empty_sources_are_stale() -> None:
    found = staleness.check(ages(records=8, snapshots=34, predictions=None), AT, 35, CONFIG).findings
    assert [one.subject for one in found] == ["records", "predictions"]
    assert not staleness.check(ages(records=7, snapshots=35), AT, 35, CONFIG).findings


def counts(stale: float, unknown: float, fewer: float) -> pd.DataFrame:
    hits = {"served_stale": stale, "served_unknown": unknown, "served_fewer": fewer}
    return pd.DataFrame([{"kind": kind, "hits": hit, "rows": 1000} for kind, hit in hits.items()])


NOTHING = pd.DataFrame(columns=["at", "kind", "hits", "rows"])


def earlier(stale: float, unknown: float, fewer: float) -> pd.DataFrame:
    """Eight windows, with a little variation of the volume."""
    return pd.concat(
        [
            counts(stale, unknown, fewer + day).assign(at=AT - pd.Timedelta(days=day))
            for day in range(9, 1, -1)
        ]
    )


def test_stale_vectors_and_cold_starts_are_found_in_the_first_window() -> None:
    assert not served.check(counts(10, 10, 500), NOTHING, CONFIG).findings
    found = served.check(counts(200, 300, 500), NOTHING, CONFIG).findings
    assert {one.check for one in found} == {"served_stale", "served_unknown"}


def test_a_typical_share_of_cold_starts_is_no_finding() -> None:
    before = pd.concat(
        [counts(10, 300, 500).assign(at=AT - pd.Timedelta(days=day)) for day in range(9, 1, -1)]
    )
    quiet = before.assign(hits=before["hits"].where(before["kind"] != "served_unknown", 60))
    assert not served.check(counts(10, 70, 500), quiet, CONFIG).findings


def test_dropped_records_of_the_log_are_a_finding_above_their_margin() -> None:
    def found(dropped: int) -> list[str]:
        drops = pd.DataFrame({"written": [990], "dropped": [dropped]})
        return [one.message for one in served.check_drops(drops, CONFIG).findings]

    (message,) = found(110)
    assert "110 of 1,100 records were dropped (10.0%)" in message
    assert not found(10) and not found(0)
    assert not served.check_drops(pd.DataFrame(), CONFIG).measurements


def test_callers_who_are_gone_are_found() -> None:
    before = pd.concat(
        [counts(0, 0, 500 + day).assign(at=AT - pd.Timedelta(days=day)) for day in range(9, 1, -1)]
    )
    assert [one.check for one in served.check(counts(0, 0, 950), before, CONFIG).findings] == ["served_fewer"]
    assert not served.check(counts(0, 0, 600), before, CONFIG).findings


def test_a_past_that_changed_is_corruption() -> None:
    table = pd.DataFrame(
        {
            "name": ["records_rows", "records_customers"],
            "value": [1000.0, 100.0],
            "then": [900.0, 90.0],
            "again": [1800.0, 90.0],
        }
    )
    (finding,) = past.check(table, CONFIG).findings
    assert (finding.check, finding.cause) == ("past_rows", Cause.CORRUPTION)
    unknown = table.assign(then=float("nan"), again=float("nan"))
    assert not past.check(unknown, CONFIG).findings


def row(**of: float | str) -> pd.DataFrame:
    fields = {"source": "served", "feature": "spend", "compared": 1000, "customers": 10, "defaults": 0,
              "stale": 0, "as_stored": 0, "ratio_low": 0.5, "ratio": 0.9, "ratio_high": 2.0}  # fmt: skip
    return pd.DataFrame([fields | of])


@pytest.mark.parametrize(
    ("differences", "check"),
    [
        ({}, "skew_other"),
        ({"defaults": 9}, "skew_default"),
        ({"stale": 9}, "skew_stale"),
        ({"ratio_low": 100.0, "ratio": 100.0, "ratio_high": 100.0}, "skew_unit"),
        ({"ratio_low": 1.0, "ratio": 1.0, "ratio_high": 1.001}, "skew_other"),
        ({"feature": "user_id"}, "skew_unknown_id"),
    ],
)
def test_the_cause_of_skew_is_named(differences: dict[str, float | str], check: str) -> None:
    (finding,) = skew.check(row(**differences), CONFIG).findings
    assert (finding.check, finding.cause, finding.vetoes) == (check, Cause.SKEW, True)


def test_rows_that_arrive_late_for_few_customers_are_no_skew() -> None:
    assert not skew.check(row(customers=9, as_stored=9), CONFIG).findings
    (finding,) = skew.check(row(customers=300, as_stored=300), CONFIG).findings
    assert (finding.check, finding.cause) == ("late_rows", Cause.CORRUPTION)
    assert not skew.check(row(customers=2), CONFIG).findings
    assert not skew.check(row().iloc[:0], CONFIG).findings

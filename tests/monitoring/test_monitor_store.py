"""Runs of the monitor in the database: what is read is what was written; a repeated run changes nothing."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from monitoring.findings import Cause, Checked, Finding, Measurement, Monitored, Severity
from monitoring.stored import MonitorStore
from support.rollout_database import postgres_server, uri

__all__ = ["postgres_server", "uri"]

AT = datetime(2026, 3, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 1, 2, tzinfo=UTC)


def run_at(at: datetime, *findings: Finding) -> Monitored:
    measurements = (
        Measurement("age_days", 1.5, 10, "records"),
        Measurement("log_loss_nats", math.nan, 3, "country=DE", "v1"),
        Measurement("log_loss_nats", 0.4, 300, "all", "v1", 0.3, 0.5),
    )
    return Monitored("churn", at, at - timedelta(days=14), "v1", Checked(measurements, findings), "d" * 64)


FINDING = Finding(
    "stale", "records", Cause.STALENESS, Severity.PAGE, "too old", {"age_days": 9.0, "limit": math.nan}
)


def test_what_is_read_is_what_was_written(uri: str) -> None:
    store = MonitorStore(uri)
    store.save(run_at(AT, FINDING), NOW)
    found = MonitorStore(uri).newest("churn")
    assert found is not None
    assert (found.model, found.at, found.since, found.version) == (
        "churn",
        AT,
        AT - timedelta(days=14),
        "v1",
    )
    (finding,) = found.checked.findings
    assert (finding.key, finding.cause, finding.vetoes) == ("stale:records", Cause.STALENESS, True)
    assert finding.numbers["age_days"] == 9 and math.isnan(finding.numbers["limit"])
    by_key = {(one.name, one.subject): one for one in found.checked.measurements}
    assert math.isnan(by_key["log_loss_nats", "country=DE"].value)
    assert (by_key["log_loss_nats", "all"].low, by_key["log_loss_nats", "all"].high) == (0.3, 0.5)


def test_a_repeated_run_replaces_the_first(uri: str) -> None:
    store = MonitorStore(uri)
    store.save(run_at(AT, FINDING), NOW)
    store.save(run_at(AT), NOW)
    assert [len(run.checked.findings) for run in store.runs("churn")] == [0]
    assert [len(run.checked.measurements) for run in store.runs("churn")] == [3]


@pytest.mark.parametrize(("after", "until", "expected"), [(0, 2, [1, 2]), (None, 1, [0, 1]), (2, None, [])])
def test_runs_of_a_time(uri: str, after: int | None, until: int | None, expected: list[int]) -> None:
    store = MonitorStore(uri)
    moments = [AT + timedelta(days=day) for day in range(3)]
    for moment in reversed(moments):
        store.save(run_at(moment), NOW)
    bounds = [None if day is None else moments[day] for day in (after, until)]
    assert [run.at for run in store.runs("churn", *bounds)] == [moments[day] for day in expected]
    assert store.runs("another") == [] and store.newest("another") is None
    newest = store.newest("churn", moments[1])
    assert newest is not None and newest.at == moments[1]

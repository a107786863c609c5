"""The times of snapshots, and which of them have labels."""

from datetime import UTC, datetime, timedelta

import pytest

from core.errors import FeatureError
from features.snapshots import schedule, schedule_of

START, END = datetime(1997, 1, 1, tzinfo=UTC), datetime(1998, 7, 1, tzinfo=UTC)


def test_months_from_a_horizon_after_the_start_to_the_end(make_spec):
    plan = schedule(make_spec(), START, END)
    assert plan.snapshots[0] == datetime(1997, 4, 1, tzinfo=UTC)
    assert plan.latest == END
    assert len(plan.snapshots) == len(set(plan.snapshots)) == 16
    assert plan.labelled[-1] == datetime(1998, 4, 1, tzinfo=UTC)
    assert len(plan.labelled) == 13


def test_the_end_is_a_snapshot_even_between_two_scheduled_ones(make_spec):
    end = datetime(1998, 6, 17, tzinfo=UTC)
    plan = schedule(make_spec(), START, end)
    assert plan.snapshots[-2:] == (datetime(1998, 6, 1, tzinfo=UTC), end)
    assert end not in plan.labelled


def test_weeks_are_mondays_and_first_is_respected(make_spec):
    plan = schedule(make_spec(snapshots={"every": "week", "first": "1997-06-04"}), START, END)
    assert plan.snapshots[0] == datetime(1997, 6, 9, tzinfo=UTC)
    assert {moment.weekday() for moment in plan.snapshots[:-1]} == {0}
    assert {b - a for a, b in zip(plan.labelled, plan.labelled[1:], strict=False)} == {timedelta(weeks=1)}


def test_a_horizon_that_ends_with_the_log_is_complete(make_spec):
    moment = END - timedelta(days=90)
    assert schedule_of([moment], make_spec(), START, END, labels=True).labelled == (moment,)


@pytest.mark.parametrize(
    ("requested", "labels", "message"),
    [
        (datetime(1998, 5, 1, tzinfo=UTC), True, r"last as_of with a label is 1998-04-02T00:00:00\+00:00"),
        (datetime(1998, 7, 2, tzinfo=UTC), False, "outside the log"),
        (START, False, "outside the log"),
        (datetime(1998, 1, 1), False, r"no time zone; write it as 1998-01-01T00:00:00\+00:00"),
    ],
)
def test_times_without_data_are_refused(make_spec, requested, labels, message):
    with pytest.raises(FeatureError, match=message):
        schedule_of([requested], make_spec(), START, END, labels)


def test_too_short_a_log_is_refused_with_the_remedy(make_spec):
    with pytest.raises(FeatureError, match=r"too short for a labelled snapshot.*horizon_days"):
        schedule(make_spec(), START, START + timedelta(days=179))


def test_a_first_that_is_not_a_date_is_refused(make_spec):
    with pytest.raises(FeatureError, match=r"snapshots\.first: 'spring'"):
        schedule(make_spec(snapshots={"first": "spring"}), START, END)

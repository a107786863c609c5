"""The schedule of snapshots: their times, and which of them can already be labelled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from core.errors import FeatureError
from data.config import utc_text
from features.spec import FeaturesConfig, Snapshots


@dataclass(frozen=True)
class Schedule:
    """The times of one build, ascending and distinct. `labelled` is a subset of `snapshots`."""

    snapshots: tuple[datetime, ...]
    labelled: tuple[datetime, ...]

    @property
    def latest(self) -> datetime:
        return self.snapshots[-1]


def schedule(spec: FeaturesConfig, start: datetime, end: datetime) -> Schedule:
    """All times that a log over [start, end) allows: the regular ones, and `end` for serving.

    The first is a full horizon after the start, so that the history before it is at least as long as the
    horizon that is predicted. Raises FeatureError when no snapshot can be labelled.
    """
    first = max(_midnight(spec.snapshots), start + spec.horizon)
    regular = list(_ticks(spec.snapshots.every, first, end))
    labelled = tuple(moment for moment in regular if moment + spec.horizon <= end)
    if not labelled:
        raise FeatureError(
            f"the log from {start:%Y-%m-%d} to {end:%Y-%m-%d} is too short for a labelled snapshot: it needs "
            f"{spec.horizon_days} days before one and {spec.horizon_days} after; "
            "ingest a longer log or lower features.horizon_days"
        )
    return Schedule((*(m for m in regular if m < end), end), labelled)


def schedule_of(
    requested: Sequence[datetime], spec: FeaturesConfig, start: datetime, end: datetime, labels: bool
) -> Schedule:
    """Exactly the requested times, all of them labelled if `labels`.

    Raises FeatureError for a time outside the log or without a zone, or whose label is still in the future.
    """
    moments = tuple(sorted({_utc(moment) for moment in requested}))
    if not moments:
        raise FeatureError("as_of: give at least one time")
    for moment in moments:
        if not start < moment <= end:
            raise FeatureError(
                f"as_of {utc_text(moment)} is outside the log; take one after {utc_text(start)} "
                f"and not past {utc_text(end)}"
            )
        if labels and moment + spec.horizon > end:
            raise FeatureError(
                f"as_of {utc_text(moment)}: its label horizon of {spec.horizon_days} days ends past the "
                f"data's end ({utc_text(end)}); the last as_of with a label is {utc_text(end - spec.horizon)}"
            )
    return Schedule(moments, moments if labels else ())


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise FeatureError(
            f"as_of {moment.isoformat()} has no time zone; write it as {moment.isoformat()}+00:00"
        )
    return moment.astimezone(UTC)


def _midnight(snapshots: Snapshots) -> datetime:
    if snapshots.first is None:
        return datetime.min.replace(tzinfo=UTC)
    try:
        day = date.fromisoformat(snapshots.first)
    except ValueError:
        raise FeatureError(
            f"features.snapshots.first: {snapshots.first!r} is not a date; write it as 1997-04-01"
        ) from None
    return datetime.combine(day, time(), UTC)


def _ticks(every: str, first: datetime, last: datetime) -> Iterator[datetime]:
    """The first days of months, or the Mondays, at 00:00 UTC in [first, last]."""
    tick = datetime.combine(first.date(), time(), UTC)
    tick = tick.replace(day=1) if every == "month" else tick - timedelta(days=tick.weekday())
    while tick <= last:
        if tick >= first:
            yield tick
        tick = _next_month(tick) if every == "month" else tick + timedelta(weeks=1)


def _next_month(moment: datetime) -> datetime:
    return (moment + timedelta(days=31)).replace(day=1)

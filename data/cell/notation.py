"""The notation of a source: how it writes numbers, money, times and missing values."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data.config import TableSource

EPOCHS = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000, "epoch_ns": 1_000_000_000}
"""Name of an epoch format -> its units per second."""
NAMED_DATES = ("iso", "day_first", "month_first", *EPOCHS)
MISSING_NUMBERS = ("na", "nan", "null", "none", "n/a", "#n/a", "#na", "<na>", "nat")
"""Words for missing numbers, in any case. A column of numbers with such words stays a column of numbers."""


@dataclass(frozen=True)
class Notation:
    """The settings of a source that define how a cell is read."""

    decimal: str = "."
    thousands: str | None = None
    currency: bool = False
    dates: str = "iso"
    """One of NAMED_DATES, or a format of strptime."""
    timezone: str = "UTC"
    """IANA name of the zone of times that have none."""
    missing: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: "TableSource") -> "Notation":
        options = source.options
        dates = options.get("date_format") if source.dates == "iso" else None
        return cls(
            decimal=options.get("decimal", "."),
            thousands=options.get("thousands"),
            currency=source.currency,
            dates="iso" if dates == "ISO8601" else dates or source.dates,
            timezone=source.timezone,
            missing=source.missing,
        )


def date_problem(dates: str) -> str | None:
    """Why the format `dates` is invalid; None for a valid one."""
    if dates in (*NAMED_DATES, "ISO8601"):
        return None
    if dates == "%s":
        return "%s is no format of strptime; for epoch numbers set source.dates to epoch_s or epoch_ms"
    if "%" not in dates:
        return f"{dates!r} is unknown; write one of {', '.join(NAMED_DATES)}, or a format such as %d.%m.%Y"
    from datetime import UTC, datetime

    try:
        datetime.strptime(datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC).strftime(dates), dates)
    except ValueError:
        return f"{dates!r} is no format of strptime, such as %d.%m.%Y %H:%M"
    return None

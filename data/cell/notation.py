"""How a source writes its cells: numbers, money, times, and what is missing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data.config import TableSource

EPOCHS = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000, "epoch_ns": 1_000_000_000}
"""Units of `dates` in a second."""
NAMED_DATES = ("iso", "day_first", "month_first", *EPOCHS)
MISSING_NUMBERS = ("na", "nan", "null", "none", "n/a", "#n/a", "#na", "<na>", "nat")
"""In any capitals: no number, but no reason to take a column of numbers for text."""


@dataclass(frozen=True)
class Notation:
    """The settings of a source that say how a cell is read."""

    decimal: str = "."
    thousands: str | None = None
    currency: bool = False
    dates: str = "iso"
    """One of NAMED_DATES, or a format of strptime."""
    timezone: str = "UTC"
    """Of times without a zone."""
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
    """Why `dates` cannot be read; None for one that can."""
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

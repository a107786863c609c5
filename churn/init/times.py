"""The format and the time zone of a column of moments, or a doubt about them."""

from typing import Any

import pandas as pd

from churn.init.belief import Notes
from churn.init.columns import Column, moments
from churn.init.dates import Dates, spelled


def settle_dates(column: Column, notes: Notes, key: str = "dates") -> Dates:
    """The format of the moments of the column. An ambiguous order of day and month becomes a doubt."""
    dates = column.dates
    assert dates is not None
    if answer := notes.answer(key):
        notes.found("dates", answer, "your answer")
        return Dates(
            spelled(answer, column.values) if dates.ambiguous else answer,
            "your answer",
            dates.clock,
            dates.zoned,
        )
    if not dates.ambiguous:
        return dates
    order, why = _likelier_order(column, dates)
    notes.doubted(key, order, why, ("day_first", "month_first"))
    return Dates(spelled(order, column.values), why, dates.clock, dates.zoned)


def settle_zone(source: dict[str, Any], time: Column, dates: Dates, notes: Notes) -> None:
    """Write format and time zone to the source. Times of day without a zone are a doubt; days are not."""
    if dates.dates != "iso" or time.numeric:
        source["dates"] = dates.dates
    if answer := notes.answer("timezone"):
        source["timezone"] = answer
        notes.found("time zone", answer, "your answer")
    elif dates.clock and not dates.zoned:
        source["timezone"] = "UTC"
        notes.doubted("timezone", "UTC", f"{time.name} has times of day without a zone", ())


def _likelier_order(column: Column, dates: Dates) -> tuple[str, str]:
    """The order of day and month in which the rows ascend more often, since most logs are sorted; and why."""
    ascending = {}
    for order in ("day_first", "month_first"):
        read = moments(column, Dates(order, "", dates.clock)).dropna()
        steps = read.diff().dropna()
        ascending[order] = float((steps >= pd.Timedelta(0)).mean()) if len(steps) else 0.0
    best = max(ascending, key=lambda order: ascending[order])
    why = f"{column.values[0]} can be read both ways"
    if abs(ascending["day_first"] - ascending["month_first"]) > 0.02:
        return best, f"{why}; the rows ascend more often as {best} ({ascending[best]:.0%})"
    return "month_first", f"{why}; the file does not decide it"

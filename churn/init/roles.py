"""Ranks the columns of a log that may be the time, the customer or the order.

Names give points, and so do values: which values repeat, and which column determines another one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from churn.init import words
from churn.init.columns import Column
from churn.init.dates import Dates


@dataclass(frozen=True)
class Ranked:
    """A candidate for a role with its points."""

    column: Column
    points: float
    why: str


def ranked_times(columns: Sequence[Column]) -> list[Ranked]:
    """Columns of moments, best first: the time of the purchase precedes other times."""
    found = []
    for column in columns:
        dates = column.dates
        if dates is None or column.present < 0.5:
            continue
        named = words.mentions(column.name, words.TIME)
        if column.numeric and not named and dates.dates != "iso" and not _surely_epoch(dates):
            continue  # ten digits may be any count
        if column.numeric and dates.dates == "iso" and not (named or _many_months(column)):
            continue  # eight digits may be any count
        points = 1.0 + 2 * named + column.present - 2 * words.mentions(column.name, words.OTHER_TIME)
        points += words.mentions(column.name, words.ORDER) + 0.5 * dates.clock
        points -= column.distinct < 2
        found.append(Ranked(column, points, f"dates, {dates.why}"))
    return sorted(found, key=lambda one: -one.points)


def _many_months(column: Column) -> bool:
    """Whether numbers of eight digits are days of several months, unlike a counter."""
    return column.distinct >= 30 and column.texts.str[:6].nunique() >= 3


def _surely_epoch(dates: Dates) -> bool:
    return dates.dates in ("epoch_ms", "epoch_us", "epoch_ns")


def ranked_customers(columns: Sequence[Column], time: Column) -> list[Ranked]:
    """Columns that may identify customers, best first: their values repeat over several days."""
    found = []
    for column in columns:
        if not _may_identify(column) or column is time or words.mentions(column.name, words.STRONG_TARGET):
            continue
        named = words.mentions(column.name, words.CUSTOMER)
        identifier = words.mentions(column.name, words.IDENTIFIER)
        other = words.mentions(column.name, words.ORDER) or words.mentions(column.name, words.PRODUCT)
        money = words.mentions(column.name, words.AMOUNT) or words.mentions(column.name, words.QUANTITY)
        points = 3.0 * named + identifier - 2 * (other and not named) - 2 * (money and not named)
        points -= 3 * (words.mentions(column.name, words.MEASURE) and not (named or identifier))
        points += _identifier_values(column) - 1.5 * words.mentions(column.name, words.PERSONAL) * (not named)
        if column.unique < 0.98:
            points += _returns_on_other_days(column, time)
        if named and not identifier and words.mentions(column.name, words.NAME_WORDS) and _are_words(column):
            points -= 2  # the name of a person, beside the identifier
        if column.distinct < min(20, column.rows / 20):
            points -= 2
        found.append(Ranked(column, points, _repeats(column)))
    return sorted(found, key=lambda one: (-one.points, one.column.distinct))


def _repeats(column: Column) -> str:
    times = column.texts.notna().sum() / max(1, column.distinct)
    return (
        f"{column.distinct:,} different values, each {times:.1f} times"
        if times > 1.005
        else "no value repeats"
    )


def _may_identify(column: Column) -> bool:
    if column.dates is not None and (
        not column.numeric or words.mentions(column.name, f"{words.TIME} {words.OTHER_TIME}")
    ):
        return False
    if column.numeric:
        return column.whole and not column.percent and not column.currency
    return column.distinct >= 2


def _identifier_values(column: Column) -> float:
    """Points for values that look like identifiers: short texts with digits, or many different numbers."""
    if column.numeric:
        return 0.5 if column.distinct > 50 else 0.0
    sample = column.values[:200]
    coded = sum(any(c.isdigit() for c in v) and " " not in v and len(v) <= 64 for v in sample)
    return 1.0 if coded > 0.9 * len(sample) else 0.0


def _are_words(column: Column) -> bool:
    sample = column.values[:200]
    return sum(not any(c.isdigit() for c in v) for v in sample) > 0.8 * len(sample)


def _returns_on_other_days(column: Column, time: Column) -> float:
    """Points for values that recur on other days, as customers do; negative for values as of orders."""
    seen = pd.DataFrame({"who": column.codes, "day": time.texts.str[:10].fillna("").to_numpy()})
    seen = seen[seen["who"] >= 0]
    days = seen.drop_duplicates().groupby("who").size()
    lines = seen.groupby("who").size()
    repeated = days[lines > 1]
    if not len(repeated):
        return 0.0
    return 1.0 if float((repeated > 1).mean()) > 0.3 else -2.0


def ranked_orders(columns: Sequence[Column], customer: Column, time: Column) -> list[Ranked]:
    """Columns that may identify orders, best first: each value has one customer and one day."""
    found = []
    for column in columns:
        if column in (customer, time) or not _may_identify(column) or column.unique < 0.02:
            continue
        named = words.mentions(column.name, words.ORDER)
        if not named and (column.unique > 0.98 or not _identifier_values(column)):
            continue
        one_customer, one_day = _determines(column, customer), _determines(column, time)
        if min(one_customer, one_day) < 0.97:
            continue
        identifier = words.mentions(column.name, words.IDENTIFIER)
        points = (
            2.0 * named + identifier + _identifier_values(column) - words.mentions(column.name, words.STATUS)
        )
        points -= 2 * words.mentions(column.name, words.PRODUCT)
        if points >= 2:
            found.append(Ranked(column, points, f"{_repeats(column)}, all of one customer and day"))
    return sorted(found, key=lambda one: -one.points)


def _determines(column: Column, other: Column) -> float:
    """The share of repeated values that have only one value of the other column; 1 if no value repeats."""
    text = other.texts.str[:10] if other.dates is not None and not other.numeric else other.texts
    pairs = pd.DataFrame({"a": column.codes, "b": pd.factorize(text)[0]})
    pairs = pairs[(pairs["a"] >= 0) & (pairs["b"] >= 0)]
    lines = pairs.groupby("a").size()
    different = pairs.drop_duplicates().groupby("a").size()
    repeated = different[lines > 1]
    return float((repeated == 1).mean()) if len(repeated) else 1.0

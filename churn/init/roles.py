"""Which column of a log is the customer, the time, the amount, the quantity, the order.

Names give points, and so do values: who repeats, what determines what, how numbers spread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from churn.init import words
from churn.init.belief import Notes
from churn.init.columns import Column
from churn.init.dates import Dates


@dataclass(frozen=True)
class Ranked:
    """A candidate for a role with its points."""

    column: Column
    points: float
    why: str


def ranked_times(columns: Sequence[Column]) -> list[Ranked]:
    """Columns of moments, best first. Of several, the one that is about the purchase itself."""
    found = []
    for column in columns:
        dates = column.dates
        if dates is None or column.present < 0.5:
            continue
        named = words.mentions(column.name, words.TIME)
        if column.numeric and not named and dates.dates != "iso" and not _surely_epoch(dates):
            continue  # ten digits may count anything
        if column.numeric and dates.dates == "iso" and not (named or _many_months(column)):
            continue  # eight digits may count anything
        points = 1.0 + 2 * named + column.present - 2 * words.mentions(column.name, words.OTHER_TIME)
        points += words.mentions(column.name, words.ORDER) + 0.5 * dates.clock
        points -= column.distinct < 2
        found.append(Ranked(column, points, f"dates, {dates.why}"))
    return sorted(found, key=lambda one: -one.points)


def _many_months(column: Column) -> bool:
    """Whether eight digits are days of several months, which a counter is not."""
    return column.distinct >= 30 and column.texts.str[:6].nunique() >= 3


def _surely_epoch(dates: Dates) -> bool:
    return dates.dates in ("epoch_ms", "epoch_us", "epoch_ns")


def ranked_customers(columns: Sequence[Column], time: Column | None) -> list[Ranked]:
    """Columns that may name who bought: values that repeat over several days."""
    found = []
    for column in columns:
        if not _may_identify(column) or column is time:
            continue
        named = words.mentions(column.name, words.CUSTOMER)
        identifier = words.mentions(column.name, words.IDENTIFIER)
        other = words.mentions(column.name, words.ORDER) or words.mentions(column.name, words.PRODUCT)
        money = words.mentions(column.name, words.AMOUNT) or words.mentions(column.name, words.QUANTITY)
        points = 3.0 * named + identifier - 2 * (other and not named) - 2 * (money and not named)
        points -= 3 * (words.mentions(column.name, words.MEASURE) and not (named or identifier))
        points += _identifier_values(column) - 1.5 * words.mentions(column.name, words.PERSONAL) * (not named)
        if time is not None and column.unique < 0.98:
            points += _returns_on_other_days(column, time)
        if named and not identifier and words.mentions(column.name, words.NAME_WORDS) and _words(column):
            points -= 2  # a name of a person beside the number
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
    """Short texts with digits, or whole numbers that do not count anything, look like identifiers."""
    if column.numeric:
        return 0.5 if column.distinct > 50 else 0.0
    sample = column.values[:200]
    coded = sum(any(c.isdigit() for c in v) and " " not in v and len(v) <= 64 for v in sample)
    return 1.0 if coded > 0.9 * len(sample) else 0.0


def _words(column: Column) -> bool:
    sample = column.values[:200]
    return sum(not any(c.isdigit() for c in v) for v in sample) > 0.8 * len(sample)


def _returns_on_other_days(column: Column, time: Column) -> float:
    """A customer comes back on other days, an order does not."""
    seen = pd.DataFrame({"who": column.codes, "day": time.texts.str[:10].fillna("").to_numpy()})
    seen = seen[seen["who"] >= 0]
    days = seen.drop_duplicates().groupby("who").size()
    lines = seen.groupby("who").size()
    repeated = days[lines > 1]
    if not len(repeated):
        return 0.0
    return 1.0 if float((repeated > 1).mean()) > 0.3 else -2.0


def ranked_orders(columns: Sequence[Column], customer: Column, time: Column) -> list[Ranked]:
    """Columns of which each value belongs to one customer and one day."""
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
    """Share of repeated values to which only one value of the other column belongs."""
    text = other.texts.str[:10] if other.dates is not None and not other.numeric else other.texts
    pairs = pd.DataFrame({"a": column.codes, "b": pd.factorize(text)[0]})
    pairs = pairs[(pairs["a"] >= 0) & (pairs["b"] >= 0)]
    lines = pairs.groupby("a").size()
    different = pairs.drop_duplicates().groupby("a").size()
    repeated = different[lines > 1]
    return float((repeated == 1).mean()) if len(repeated) else 1.0


def ranked_amounts(columns: Sequence[Column], taken: Sequence[Column | None]) -> list[Ranked]:
    """Columns of money: named so, with fractions or a currency."""
    found = []
    for column in columns:
        if (
            any(column is one for one in taken)
            or not column.numeric
            or column.percent
            or column.present < 0.3
        ):
            continue
        if column.dates is not None and not words.mentions(column.name, words.AMOUNT):
            continue
        named = words.mentions(column.name, words.AMOUNT)
        total = words.mentions(column.name, words.TOTAL)
        identifier = words.mentions(column.name, words.IDENTIFIER) or (column.whole and column.unique > 0.99)
        points = 2.0 * named + 1.5 * total + 2 * column.currency - 3.5 * (identifier and column.whole)
        points += (not column.whole) + 0.5 * (column.distinct > 20)
        points -= 2.5 * words.mentions(column.name, words.NOT_AMOUNT)
        points -= 0.5 * words.mentions(column.name, words.UNIT)
        points -= 2 * words.mentions(column.name, words.CODE) + 2 * (column.distinct <= 2)
        points -= 2 * (column.whole and float(np.nanmedian(np.abs(column.numbers))) <= 2)  # a count
        if points > 0.5:
            found.append(Ranked(column, points, f"{column.shown()}"))
    return sorted(found, key=lambda one: -one.points)


def quantity_of(columns: Sequence[Column], taken: Sequence[Column | None]) -> Column | None:
    """A column of small whole numbers that is named as a count of things."""
    found = [
        column
        for column in columns
        if not any(column is one for one in taken)
        and column.numeric
        and column.dates is None
        and words.mentions(column.name, words.QUANTITY)
        and not words.mentions(column.name, words.IDENTIFIER.replace(" no ", " "))
        and not words.mentions(column.name, words.AMOUNT)
        and float(np.nanmedian(np.abs(column.numbers))) < 10_000
    ]
    return found[0] if found else None


@dataclass(frozen=True)
class Money:
    """A column, or an expression over columns."""

    column: Column | None = None
    expression: str | None = None
    reads: tuple[Column, ...] = ()


def decide_money(
    columns: Sequence[Column], taken: Sequence[Column | None], quantity: Column | None, notes: Notes
) -> Money:
    """The line's total: a column, quantity * unit price, or 1 where the log knows no money."""
    by_name = {column.name: column for column in columns}
    if answer := notes.answer("amount"):
        if answer in by_name:
            notes.found("amount", answer, "your answer")
            return Money(by_name[answer], reads=(by_name[answer],))
        notes.found("amount", answer, "your answer, an expression")
        return Money(None, answer, tuple(c for c in columns if c.name in answer))
    ranked = ranked_amounts(columns, [*taken, quantity])
    if not ranked:
        notes.found("amount", "1 a row", "no column holds money")
        return Money(None, "1")
    best = ranked[0]
    price = best.column
    if quantity is not None and quantity.distinct > 1:
        totals = [one.column for one in ranked if words.mentions(one.column.name, words.TOTAL)]
        if not (
            totals and words.mentions(price.name, words.TOTAL) and not words.mentions(price.name, words.UNIT)
        ):
            per_unit = words.mentions(price.name, words.UNIT)
            grows = _grows_with(price, quantity)
            product = f"{quoted(quantity.name)} * {quoted(price.name)}"
            if per_unit or grows < 0.35:
                why = f"{price.name} does not grow with {quantity.name} (rank correlation {grows:.2f})"
                if per_unit:
                    notes.found(
                        "amount",
                        product,
                        f"{price.name} is named as the price of one; no column holds totals",
                    )
                elif words.mentions(price.name, words.AMOUNT):
                    notes.found("amount", product, why + ": the price of one")
                else:
                    notes.doubted("amount", product, why, (price.name, product))
                return Money(None, product, (quantity, price))
    rivals = [one for one in ranked[1:] if one.points > best.points - 0.5]
    if best.points < 2 or (rivals and not _alike(price, rivals[0].column)):
        others = tuple(one.column.name for one in [best, *rivals][:4])
        notes.doubted("amount", price.name, f"{best.why}; its name alone does not decide", others)
    else:
        notes.found("amount", price.name, best.why)
    return Money(price, reads=(price,))


def _grows_with(price: Column, quantity: Column) -> float:
    frame = pd.DataFrame({"p": np.abs(price.numbers), "q": np.abs(quantity.numbers)}).dropna()
    return float(frame["p"].corr(frame["q"], method="spearman")) if len(frame) > 10 else 0.0


def _alike(a: Column, b: Column) -> bool:
    frame = pd.DataFrame({"a": a.numbers, "b": b.numbers}).dropna()
    return len(frame) > 10 and float(frame["a"].corr(frame["b"])) > 0.98


def quoted(name: str) -> str:
    """As expressions and SQL take a column's name."""
    if name.isidentifier() and name.isascii() and name.lower() not in words.SQL:
        return name
    return '"' + name.replace('"', '""') + '"'


def status_filter(
    columns: Sequence[Column], taken: Sequence[Column | None], money: bool, notes: Notes
) -> str | None:
    """An expression that leaves out rows whose status says that nothing was bought; where there is `money`,
    views and clicks are left out as well."""
    clauses = []
    for column in columns:
        if any(column is one for one in taken) or column.dates is not None or not 2 <= column.distinct <= 25:
            continue
        flagged = words.mentions(column.name, words.CANCELLED)
        yes = [v for v in column.values if words.plain(v) in words.YES]
        bought = [v for v in column.values if words.mentions(v, words.BOUGHT)]
        browsed = [v for v in column.values if words.mentions(v, words.BROWSED) and v not in bought]
        if bought and len(browsed) >= column.distinct / 2 and money:
            share = float(column.texts.isin(bought).mean())
            value = f"{quoted(column.name)} is {', '.join(bought[:4])}"
            others = ", ".join(map(repr, browsed[:4]))
            notes.found("rows that count", value, f"{share:.1%} of the rows; the others are {others}")
            clauses.append(one_of(quoted(column.name), bought))
            continue
        if flagged and column.distinct == 2 and yes:
            bad = yes
        elif column.numeric:
            continue
        else:
            bad = [
                v
                for v in column.values
                if words.mentions(v, words.CANCELLED) and not v.lower().startswith("no")
            ]
        if not bad or len(bad) == column.distinct:
            continue
        share = float(column.texts.isin(bad).mean())
        good = [v for v in column.values if words.mentions(v, words.DONE)]
        why = f"{share:.1%} of the rows are {', '.join(map(repr, bad[:4]))}"
        if not (good or flagged or words.mentions(column.name, words.STATUS)):
            continue  # a word in a description
        value = f"{quoted(column.name)} is {', '.join(bad[:4])}"
        if share > 0.5:
            notes.doubted("left out rows", value, why + ", more than half", ("yes", "no"))
        else:
            notes.found("rows that do not count", value, why)
        if notes.answers.get("left out rows") == "no":
            continue
        clauses.append(_excluding(column, bad))
    return " and ".join(clauses) or None


def one_of(name: str, values: Sequence[str]) -> str:
    """A condition; `name` is quoted already."""
    listed = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{name} in ({listed})" if len(values) > 1 else f"{name} = {listed}"


def _excluding(column: Column, bad: Sequence[str]) -> str:
    listed = ", ".join("'" + value.replace("'", "''") + "'" for value in bad)
    name = quoted(column.name)
    excluded = f"{name} not in ({listed})" if len(bad) > 1 else f"{name} <> {listed}"
    return f"({excluded} or {name} is null)" if column.present < 1 else excluded

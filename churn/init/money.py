"""Which column of a log, or which expression, is the amount of a purchase, and which column its quantity."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from churn.init import words
from churn.init.belief import Notes
from churn.init.columns import Column
from churn.init.conditions import quoted
from churn.init.roles import Ranked


@dataclass(frozen=True)
class Money:
    """The amount: a column, or an expression over the columns in `reads`."""

    column: Column | None = None
    expression: str | None = None
    reads: tuple[Column, ...] = ()


def decide_money(
    columns: Sequence[Column], taken: Sequence[Column | None], quantity: Column | None, notes: Notes
) -> Money:
    """The total of a line: a column, quantity * unit price, or 1 if no column contains money."""
    by_name = {column.name: column for column in columns}
    if answer := notes.answer("amount"):
        if answer in by_name:
            notes.found("amount", answer, "your answer")
            return Money(by_name[answer], reads=(by_name[answer],))
        notes.found("amount", answer, "your answer, an expression")
        return Money(None, answer, tuple(c for c in columns if c.name in answer))
    ranked = ranked_amounts(columns, [*taken, quantity])
    if not ranked:
        notes.found("amount", "1 a row", "no column contains money")
        return Money(None, "1")
    best = ranked[0]
    if quantity is not None and (product := _product(ranked, quantity, notes)) is not None:
        return product
    rivals = [one for one in ranked[1:] if one.points > best.points - 0.5]
    if best.points < 2 or (rivals and not _alike(best.column, rivals[0].column)):
        others = tuple(one.column.name for one in [best, *rivals][:4])
        notes.doubted("amount", best.column.name, f"{best.why}; its name alone does not decide", others)
    else:
        notes.found("amount", best.column.name, best.why)
    return Money(best.column, reads=(best.column,))


def _product(ranked: Sequence[Ranked], quantity: Column, notes: Notes) -> Money | None:
    """quantity * price, if the best column is the price of one item; None if it is a total."""
    price = ranked[0].column
    per_unit = words.mentions(price.name, words.UNIT)
    if quantity.distinct <= 1 or (words.mentions(price.name, words.TOTAL) and not per_unit):
        return None
    correlation = _correlation(price, quantity)
    if not per_unit and correlation >= 0.35:
        return None
    product = f"{quoted(quantity.name)} * {quoted(price.name)}"
    why = f"{price.name} does not grow with {quantity.name} (rank correlation {correlation:.2f})"
    if per_unit:
        why = f"{price.name} is named as the price of one; no column contains totals"
        notes.found("amount", product, why)
    elif words.mentions(price.name, words.AMOUNT):
        notes.found("amount", product, why + ": the price of one")
    else:
        notes.doubted("amount", product, why, (price.name, product))
    return Money(None, product, (quantity, price))


def ranked_amounts(columns: Sequence[Column], taken: Sequence[Column | None]) -> list[Ranked]:
    """The columns that may be money, best first: by names, fractions and currencies."""
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
    """The first column of small numbers whose name is a word for quantities."""
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


def _correlation(price: Column, quantity: Column) -> float:
    """The rank correlation of the absolute values; 0 for ten rows or fewer."""
    frame = pd.DataFrame({"p": np.abs(price.numbers), "q": np.abs(quantity.numbers)}).dropna()
    return float(frame["p"].corr(frame["q"], method="spearman")) if len(frame) > 10 else 0.0


def _alike(a: Column, b: Column) -> bool:
    """Whether the columns are almost perfectly correlated."""
    frame = pd.DataFrame({"a": a.numbers, "b": b.numbers}).dropna()
    return len(frame) > 10 and float(frame["a"].corr(frame["b"])) > 0.98

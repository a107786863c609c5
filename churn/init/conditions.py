"""Conditions of `data.source.where`: which rows of a log are purchases."""

from collections.abc import Sequence

from churn.init import words
from churn.init.belief import Notes
from churn.init.columns import Column


def status_filter(
    columns: Sequence[Column], taken: Sequence[Column], has_money: bool, notes: Notes
) -> str | None:
    """A condition that excludes rows whose status is no purchase; None if all rows are purchases.

    If the log has money, views and clicks are excluded as well. `taken` are the columns that have a role.
    """
    clauses = []
    for column in columns:
        if any(column is one for one in taken) or column.dates is not None or not 2 <= column.distinct <= 25:
            continue
        clause = (has_money and _only_purchases(column, notes)) or _without_cancelled(column, notes)
        if clause:
            clauses.append(clause)
    return " and ".join(clauses) or None


def _only_purchases(column: Column, notes: Notes) -> str | None:
    """For a column of events, of which at least half of the values are views, clicks and the like."""
    bought = [v for v in column.values if words.mentions(v, words.BOUGHT)]
    browsed = [v for v in column.values if words.mentions(v, words.BROWSED) and v not in bought]
    if not bought or len(browsed) < column.distinct / 2:
        return None
    share = float(column.texts.isin(bought).mean())
    value = f"{quoted(column.name)} is {', '.join(bought[:4])}"
    others = ", ".join(map(repr, browsed[:4]))
    notes.found("rows that count", value, f"{share:.1%} of the rows; the others are {others}")
    return one_of(quoted(column.name), bought)


def _without_cancelled(column: Column, notes: Notes) -> str | None:
    """For a column whose values, or whose name and value "yes", state that a purchase was cancelled."""
    flagged = words.mentions(column.name, words.CANCELLED)
    yes = [v for v in column.values if words.plain(v) in words.YES]
    if flagged and column.distinct == 2 and yes:
        cancelled = yes
    elif column.numeric:
        return None
    else:
        cancelled = [
            v for v in column.values if words.mentions(v, words.CANCELLED) and not v.lower().startswith("no")
        ]
    if not cancelled or len(cancelled) == column.distinct:
        return None
    done = any(words.mentions(v, words.DONE) for v in column.values)
    if not (done or flagged or words.mentions(column.name, words.STATUS)):
        return None  # a word of a description
    share = float(column.texts.isin(cancelled).mean())
    why = f"{share:.1%} of the rows are {', '.join(map(repr, cancelled[:4]))}"
    value = f"{quoted(column.name)} is {', '.join(cancelled[:4])}"
    if share > 0.5:
        notes.doubted("left out rows", value, why + ", more than half", ("yes", "no"))
    else:
        notes.found("rows that do not count", value, why)
    if notes.answers.get("left out rows") == "no":
        return None
    name = quoted(column.name)
    listed = _listed(cancelled)
    excluded = f"{name} not in ({listed})" if len(cancelled) > 1 else f"{name} <> {listed}"
    return f"({excluded} or {name} is null)" if column.present < 1 else excluded


def one_of(name: str, values: Sequence[str]) -> str:
    """The condition that a column, whose name is quoted already, has one of the values."""
    return f"{name} in ({_listed(values)})" if len(values) > 1 else f"{name} = {_listed(values)}"


def quoted(name: str) -> str:
    """The name of a column as expressions and SQL need it: in quotes if it is no plain word."""
    if name.isidentifier() and name.isascii() and name.lower() not in words.SQL:
        return name
    return '"' + name.replace('"', '""') + '"'


def _listed(values: Sequence[str]) -> str:
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)

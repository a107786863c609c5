"""Whether rows repeat, and whether a repeated row is a copy."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from churn.init import words
from churn.init.belief import Notes
from churn.init.columns import Column


def equal_rows(columns: Sequence[Column]) -> int:
    """The number of rows that equal a row above in all of the columns."""
    frame = pd.DataFrame({str(i): column.codes for i, column in enumerate(columns)})
    return int(frame.duplicated().sum())


def duplicates_of_log(
    source: dict[str, Any],
    columns: Sequence[Column],
    mapped: Sequence[Column],
    precise: str | None,
    notes: Notes,
) -> None:
    """Decide whether equal rows are copies of one purchase or several purchases.

    `mapped` are the columns that ingest reads. `precise` names what distinguishes two purchases of one day:
    a time or an order; None if nothing does.
    """
    if (answer := notes.answer("duplicates", ("drop", "keep", "refuse"))) is not None:
        source["duplicates"] = answer
        return
    whole, alike, rows = equal_rows(columns), equal_rows(mapped), columns[0].rows
    if whole and precise:
        why = f"{whole:,} of {rows:,} rows equal a row above in every column, {precise} included"
        notes.doubted("duplicates", "drop", why, ("drop", "keep"))
        source["duplicates"] = "drop"
        if alike > whole:
            source["keep"] = _distinguishing_columns(columns, mapped, whole)
    elif whole:
        why = f"{whole:,} of {rows:,} rows equal a row above; without times two purchases may be alike"
        notes.doubted("duplicates", "keep", why, ("keep", "drop"))
        source["duplicates"] = "keep"
    elif alike or not precise:
        source["duplicates"] = "keep"
        notes.found("duplicates", "keep", "no row is a copy in every column")
    else:
        source["duplicates"] = "drop"
        notes.found("duplicates", "drop", "there is no copy now; copies of later deliveries are dropped")


def duplicates_of_table(
    source: dict[str, Any],
    columns: Sequence[Column],
    customer: Column | None,
    time: Column | None,
    notes: Notes,
) -> None:
    """Drop rows that repeat the customer, or the customer and the time of a dated table."""
    if customer is None:
        return
    key = [customer] if time is None else [customer, time]
    repeated, whole = equal_rows(key), equal_rows(columns)
    if not repeated:
        return
    source["duplicates"] = "drop"
    why = f"{repeated:,} rows repeat the customer{' and time' if time is not None else ''} of a row above"
    if repeated == whole:
        notes.found("duplicates", "drop", why + " and equal it in every column")
    else:
        notes.doubted(
            "duplicates",
            "drop",
            why + f", {whole:,} of them in every column; the first row counts",
            ("drop", "refuse"),
        )


def _distinguishing_columns(columns: Sequence[Column], mapped: Sequence[Column], copies: int) -> list[str]:
    """The fewest further columns with which only the copies are equal, products first."""
    chosen = list(mapped)
    rest = [column for column in columns if not any(column is one for one in chosen)]
    rest.sort(key=lambda column: (not words.mentions(column.name, words.PRODUCT), -column.distinct))
    names: list[str] = []
    for column in rest:
        if equal_rows(chosen) <= copies:
            break
        chosen.append(column)
        names.append(column.name)
    return names

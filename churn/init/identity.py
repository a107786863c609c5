"""The identifier of customers: its type, and the column of a table that contains it."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from churn.init import words
from churn.init.belief import Notes
from churn.init.columns import Column

UUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"


def id_type(column: Column) -> tuple[Literal["integer", "string"], str]:
    """The type and the reason. `integer` only if no digit, zero or sign would be lost."""
    texts = pd.Series(column.values, dtype="object")
    if words.mentions(column.name, "phone* mobile* telefon* tel msisdn handy*"):
        return "string", "a phone number, not a quantity"
    if texts.str.fullmatch(UUID).all():
        return "string", "UUIDs"
    if not column.numeric or not texts.str.fullmatch(r"-?\d{1,19}(\.0*)?").all():
        return "string", f"texts such as {column.values[0]!r}"
    if column.leading_zeros:
        return "string", "leading zeros, which a number would lose"
    whole = [int(value.split(".")[0]) for value in column.values]
    if max(whole) >= 2**63:
        return "string", "more digits than 64 bits hold"
    return "integer", f"whole numbers of up to {max(len(str(value)) for value in whole)} digits"


def find_id(columns: Sequence[Column], target: Column | None, notes: Notes) -> Column | None:
    """The identifier of a table with a row for each customer; None if the table has none."""
    by_name = {column.name: column for column in columns}
    if (answer := notes.answer("user_id", (*by_name, "row number"))) is not None:
        return None if answer == "row number" else by_name[answer]
    ranked = sorted(
        (
            (points, -i, column)
            for i, column in enumerate(columns)
            if column is not target and (points := _points(column)) > 0
        ),
        key=lambda one: (-one[0], -one[1]),
    )
    return ranked[0][2] if ranked else None


def _points(column: Column) -> float:
    """Points; above 0 for a column that may identify the rows of a table."""
    if column.present < 0.99 or column.unique < 0.9 or column.distinct < 3:
        return 0.0
    if column.dates is not None and not column.numeric:
        return 0.0
    customer = words.mentions(column.name, words.CUSTOMER)
    identifier = words.mentions(column.name, words.IDENTIFIER)
    personal = words.mentions(column.name, words.PERSONAL)
    row = words.mentions(column.name, "row rownumber index unnamed nr line zeile #")
    if column.numeric:
        if not column.whole or column.percent or column.currency:
            return 0.0
        money = words.mentions(column.name, words.AMOUNT)
        if not (identifier or customer) and (not column_counts(column) or money):
            return 0.0
    else:
        spaced = sum(" " in value for value in column.values[:200])
        if spaced > 60 and not identifier:
            return 0.0
    points = (
        1.0 + 2 * customer + 1.5 * identifier - 0.8 * personal - 1.5 * row + 2 * (column.unique - 0.9) * 10
    )
    return points if column.unique > 0.98 or identifier or customer else 0.0


def column_counts(column: Column) -> bool:
    """Whether whole numbers have few gaps, as those of a counter."""
    known = column.numbers[np.isfinite(column.numbers)]
    return bool(len(known) > 2 and known.max() - known.min() < 3 * len(known) and column.unique > 0.99)

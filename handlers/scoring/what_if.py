"""What-if questions: feature values that a client gives in place of those in the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handlers.protocol.messages import Refusal, Request

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The features that one question gives."""

    names: tuple[str, ...]
    complete: bool
    """All stored features are given, so that the answer does not depend on the store."""


def with_overrides(
    spec: Mapping[str, Any],
    columns: Columns,
    customers: int,
    rows: list[list[int]],
    requests: Sequence[Request | Refusal],
) -> tuple[Columns, Sequence[int], dict[int, WhatIf]]:
    """The feature columns with an additional row for each what-if question.

    `columns` have a row for each of the `customers` who were read. `rows` has for each request the rows of
    its customers, and is changed to the rows of their questions. Returns the columns, for each row the row of
    the customer, and row -> question. Derived features are computed again. Without questions in the batch the
    columns are returned unchanged.
    """
    questions = [
        (request.overrides, rows_of)
        for request, rows_of in zip(requests, rows, strict=True)
        if isinstance(request, Request) and request.overrides
    ]
    if not questions:
        return columns, range(customers), {}
    grown = {name: _listed(column) for name, column in columns.items()}
    read_row = list(range(customers))
    what_if: dict[int, WhatIf] = {}
    stored = [feature["name"] for feature in spec["features"]]
    for overrides, rows_of in questions:
        for position, given in enumerate(overrides):
            if not given:
                continue
            row = rows_of[position]
            for name, column in grown.items():
                column.append(given.get(name, column[row]))
            for ratio in spec["derived"]:
                if ratio["numerator"] in given or ratio["denominator"] in given:
                    grown[ratio["name"]][-1] = _ratio(ratio, grown)
            rows_of[position] = len(read_row)
            what_if[len(read_row)] = WhatIf(tuple(sorted(given)), all(name in given for name in stored))
            read_row.append(row)
    return grown, read_row, what_if


def _ratio(ratio: Mapping[str, Any], columns: Mapping[str, list[Any]]) -> float | None:
    """The derived feature in the last row, defined as in `features`."""
    numerator, denominator = columns[ratio["numerator"]][-1], columns[ratio["denominator"]][-1]
    if numerator is None or denominator is None:
        return None
    return float(numerator / max(denominator, ratio["floor"]))


def _listed(column: Sequence[Any]) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else list(column)

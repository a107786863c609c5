"""What-if questions: feature values that a caller gives in place of the store's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handlers.protocol.messages import Refusal, Request

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What one question gives."""

    names: tuple[str, ...]
    complete: bool
    """Every stored feature is given: nothing of the answer comes from the store."""


def with_overrides(
    spec: Mapping[str, Any],
    columns: Columns,
    read: int,
    rows: list[list[int]],
    requests: Sequence[Request | Refusal],
) -> tuple[Columns, Sequence[int], dict[int, WhatIf]]:
    """Feature columns of the `read` customers with a row more for each question, and where these came from.

    `rows` (for each request the rows of its customers) is led to the new rows. Returns the columns, for each
    row the row it was made from, and the questions by row. Derived features are computed again from their
    parts. Without a question in the batch the columns come back as they are.
    """
    asking = [
        (request.overrides, rows_of)
        for request, rows_of in zip(requests, rows, strict=True)
        if isinstance(request, Request) and request.overrides
    ]
    if not asking:
        return columns, range(read), {}
    grown = {name: _listed(column) for name, column in columns.items()}
    read_row = list(range(read))
    what_if: dict[int, WhatIf] = {}
    stored = [feature["name"] for feature in spec["features"]]
    for overrides, rows_of in asking:
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
    """The spec's ratio in the last row, as `features` defines it."""
    numerator, denominator = columns[ratio["numerator"]][-1], columns[ratio["denominator"]][-1]
    if numerator is None or denominator is None:
        return None
    return float(numerator / max(denominator, ratio["floor"]))


def _listed(column: Sequence[Any]) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else list(column)

"""What is known of a batch of requests after each stage of `handlers.predictor`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from handlers.identity import PROBE_ID
from handlers.protocol.messages import Call, Refusal, Request
from handlers.scoring.what_if import WhatIf
from handlers.store.policies import Vectors


class Batch(NamedTuple):
    """Parsed requests: `calls` and `requests` have one entry for each request."""

    calls: Sequence[Call]
    requests: Sequence[Request | Refusal]
    began: float
    """`time.perf_counter()` when the batch arrived."""

    def probes(self) -> set[int]:
        """Positions of the requests whose only customer is PROBE_ID: health checks, readiness and warm-up."""
        if not any(map(_is_probe, self.requests)):  # as in most batches
            return set()
        return {at for at, request in enumerate(self.requests) if _is_probe(request)}

    def part(self, positions: Sequence[int]) -> "Batch":
        """The requests at these positions."""
        calls, requests = self.calls, self.requests
        return Batch([calls[at] for at in positions], [requests[at] for at in positions], self.began)


def _is_probe(request: Request | Refusal) -> bool:
    if isinstance(request, Refusal) or not request.user_ids or request.user_ids[0] != PROBE_ID:
        return False
    return all(user_id == PROBE_ID for user_id in request.user_ids)


class FeatureRead(NamedTuple):
    """The features of all customers of a batch."""

    now: datetime
    """The moment of the read, in UTC."""
    vectors: Vectors
    """One vector for each distinct customer."""
    rows: list[list[int]]
    """For each request the positions of its customers in `vectors`."""


@dataclass(frozen=True)
class Scored:
    """The scores of a batch: first a row for each customer who was read, then one for each what-if question.

    `scores`, `read_row` and each of `columns` have one entry for each row; `vectors` has one for each
    customer who was read.
    """

    now: datetime
    vectors: Vectors
    columns: Mapping[str, Sequence[Any]]
    scores: Sequence[float]
    rows: Sequence[Sequence[int]]
    """For each request the rows of its customers."""
    read_row: Sequence[int]
    """Row -> position in `vectors` of the customer whose features the row has."""
    what_if: Mapping[int, WhatIf]
    """Row -> what the caller gave; only rows of what-if questions."""

    @cached_property
    def is_all_ok(self) -> bool:
        """Whether each customer has a finite score from features whose status is `ok`, as in most batches."""
        status = self.vectors.status
        return not self.what_if and status.count("ok") == len(status) and math.isfinite(sum(self.scores))

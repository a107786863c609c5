"""What a scored batch means for each customer in it: a prediction, or why there is none."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from handlers import telemetry
from handlers.bundle import Bundle
from handlers.protocol.messages import Outcome, Prediction, Refusal, Wants
from handlers.scoring.what_if import WhatIf
from handlers.store.policies import Vectors

UNKNOWN = Refusal(404, "unknown user_id")
NO_SCORE = Refusal(503, "the model has no finite score for this customer", telemetry.NO_SCORE, 60)


@dataclass(frozen=True)
class Scored:
    """All that a batch asked for, scored: first the customers read, then a row a what-if question.

    `scores`, `read_row` and each of `columns` have as many entries as there are rows; `vectors` has one a
    customer read.
    """

    now: datetime
    vectors: Vectors
    columns: Mapping[str, Sequence[Any]]
    scores: Sequence[float]
    rows: Sequence[Sequence[int]]
    """For each request the rows of its customers."""
    read_row: Sequence[int]
    """Row -> the row of the customer as read."""
    what_if: Mapping[int, WhatIf]
    """Row -> what the caller gave."""

    @cached_property
    def all_is_well(self) -> bool:
        """Everybody has a score, from features that are ok: nearly every batch."""
        status = self.vectors.status
        return not self.what_if and status.count("ok") == len(status) and math.isfinite(sum(self.scores))

    def status(self, row: int) -> str:
        """Of the features that the row was made from."""
        return self.vectors.status[self.read_row[row]]


def store_down(retry_after_s: float | None) -> Refusal:
    """Whoever needs the store now, and is not among those whom this worker has read before."""
    return Refusal(
        503, "the feature store cannot be read now; try again later", telemetry.STORE_DOWN, retry_after_s
    )


def refusal_of(scored: Scored, row: int, bundle: Bundle) -> Refusal | None:
    """Why the customer of this row gets no score; None when they get one."""
    vectors, read = scored.vectors, scored.read_row[row]
    what_if = scored.what_if.get(row)
    if not (what_if and what_if.complete):
        status = vectors.status[read]
        if status == "unknown" and bundle.spec.get("on_unknown", "refuse") != "score":
            return UNKNOWN
        if read in vectors.lost:
            return store_down(vectors.retry_after_s)
        if status == "refused":
            reason = vectors.reasons[read] if vectors.reasons else None
            return Refusal(422, reason or "no features to score from", "refused")
    return None if math.isfinite(scored.scores[row]) else NO_SCORE


def outcome_of(scored: Scored, row: int, bundle: Bundle, wants: Wants) -> Outcome:
    """What the customer of this row is answered, but for reasons and explanations."""
    if (refusal := refusal_of(scored, row, bundle)) is not None:
        return refusal
    vectors, read, score = scored.vectors, scored.read_row[row], scored.scores[row]
    what_if = scored.what_if.get(row)
    taken = vectors.timestamps[read]
    return Prediction(
        churn_probability=score,
        prediction="High Risk" if score > bundle.threshold else "Low Risk",
        threshold=bundle.threshold,
        status=vectors.status[read],
        status_reason=vectors.reasons[read] if vectors.reasons else None,
        overridden=what_if.names if what_if else (),
        features={name: scored.columns[name][row] for name in bundle.inputs} if wants.features else None,
        feature_age_s=(scored.now - taken).total_seconds() if wants.age and taken else None,
    )

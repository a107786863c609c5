"""What a scored batch means for one customer: a prediction, or the reason why there is none."""

import math

from handlers import telemetry
from handlers.batch import Scored
from handlers.bundle import Bundle
from handlers.protocol.messages import Outcome, Prediction, Refusal, Wants

UNKNOWN = Refusal(404, "unknown user_id")
NO_SCORE = Refusal(503, "the model has no finite score for this customer", telemetry.NO_SCORE, 60)


def store_down(retry_after_s: float | None) -> Refusal:
    """For a customer whose features cannot be read now, and who has no last known features either."""
    return Refusal(
        503, "the feature store cannot be read now; try again later", telemetry.STORE_DOWN, retry_after_s
    )


def refusal_of(scored: Scored, row: int, bundle: Bundle) -> Refusal | None:
    """Why the customer of this row gets no score; None where there is a score."""
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
    """The outcome for the customer of this row, without reasons and explanation."""
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

"""The stage `record`: counts a batch that is answered, and writes its scores to the prediction log."""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from handlers import telemetry
from handlers.batch import Batch, Scored
from handlers.bundle import Bundle
from handlers.outcomes import refusal_of
from handlers.protocol.messages import Answer, Call, Refusal
from handlers.records.log import PredictionLog
from handlers.records.record import Records
from handlers.telemetry import Telemetry

log = logging.getLogger("churn.handler")


@dataclass(frozen=True)
class Bookkeeping:
    """Metrics, and the prediction log if there is one."""

    bundle: Bundle
    telemetry: Telemetry
    log: PredictionLog | None

    def record(
        self, batch: Batch, scored: Scored | Refusal, answers: Sequence[Answer], seconds: float
    ) -> None:
        """Counts requests, features and scores, and logs the scores in answers with status 200.

        `seconds`: from the arrival of the batch to its answers.
        """
        self._count_requests(batch, answers, seconds)
        if isinstance(scored, Refusal):
            self.telemetry.add(telemetry.ERRORS, telemetry.STORE_DOWN)
            return
        self._count_vectors(scored)
        answered = self._answered_rows(scored, answers)
        rows = list(chain.from_iterable(answered))
        if not rows:
            return
        scores = [scored.scores[row] for row in rows]
        self.telemetry.observe_all(telemetry.SCORE, scores)
        risky = sum(score > self.bundle.threshold for score in scores)
        self.telemetry.add(telemetry.PREDICTIONS, "High Risk", times=risky)
        self.telemetry.add(telemetry.PREDICTIONS, "Low Risk", times=len(scores) - risky)
        if self.log is not None:
            self.log.append(_records(scored, answered, batch.calls, seconds))

    def _count_requests(self, batch: Batch, answers: Sequence[Answer], seconds: float) -> None:
        count = self.telemetry
        count.observe(telemetry.LATENCY, seconds, len(answers))
        count.observe(telemetry.BATCH_REQUESTS, len(answers))
        kinds: dict[tuple[str, int], int] = {}  # a Counter takes longer for a small batch
        for request, answer in zip(batch.requests, answers, strict=True):
            kind = "none" if isinstance(request, Refusal) else request.protocol, answer.http_status
            kinds[kind] = kinds.get(kind, 0) + 1
        for (protocol, status), times in kinds.items():
            count.add(telemetry.REQUESTS, protocol, str(status), times=times)

    def _count_vectors(self, scored: Scored) -> None:
        count, vectors = self.telemetry, scored.vectors
        if not vectors.ids:
            return
        count.observe(telemetry.BATCH_CUSTOMERS, len(vectors.ids))
        for status in set(vectors.status):
            count.add(telemetry.VECTORS, status, times=vectors.status.count(status))
        for taken, times in Counter(vectors.timestamps).items():
            if taken is not None:
                count.observe(telemetry.AGE, (scored.now - taken).total_seconds(), times)
        for name, times in vectors.missing.items():
            if times:
                count.add(telemetry.MISSING, name, times=times)
        if scored.what_if:
            count.add(telemetry.OVERRIDDEN, times=len(scored.what_if))
        if vectors.retry_after_s is not None:
            count.add(telemetry.ERRORS, telemetry.STORE_DOWN)
        if not math.isfinite(sum(scored.scores)):
            lacking = sum(not math.isfinite(score) for score in scored.scores)
            count.add(telemetry.ERRORS, telemetry.NO_SCORE, times=lacking)
            log.error("no finite score for %d of %d rows", lacking, len(scored.scores))

    def _answered_rows(self, scored: Scored, answers: Sequence[Answer]) -> list[Sequence[int]]:
        """For each request the rows whose score is in its answer."""
        if scored.is_all_ok:
            return [
                rows if answer.http_status == 200 else ()
                for rows, answer in zip(scored.rows, answers, strict=True)
            ]
        all_rows = range(len(scored.scores))
        with_score = {row for row in all_rows if refusal_of(scored, row, self.bundle) is None}
        return [
            [row for row in rows if row in with_score] if answer.http_status == 200 else ()
            for rows, answer in zip(scored.rows, answers, strict=True)
        ]


def _records(
    scored: Scored, answered: Sequence[Sequence[int]], calls: Sequence[Call], seconds: float
) -> Records:
    """One record for each score in an answer; `answered` and `calls` have one entry for each request."""
    rows = list(chain.from_iterable(answered))
    request_ids: list[str] = []
    for call, its_rows in zip(calls, answered, strict=True):
        request_ids.extend(repeat(call.request_id, len(its_rows)))
    trace_ids: list[str | None] = []
    if any(call.traceparent for call in calls):
        for call, its_rows in zip(calls, answered, strict=True):
            trace_ids.extend(repeat(call.traceparent[3:35] or None, len(its_rows)))
    vectors, read_row = scored.vectors, scored.read_row
    has_own_rows = bool(scored.what_if)
    all_rows = range(len(scored.scores))
    return Records(
        time=scored.now,
        latency_ms=seconds * 1000,
        request_ids=request_ids,
        rows=all_rows if rows == list(all_rows) else rows,
        user_ids=[vectors.ids[row] for row in read_row] if has_own_rows else vectors.ids,
        timestamps=[vectors.timestamps[row] for row in read_row] if has_own_rows else vectors.timestamps,
        status=[vectors.status[row] for row in read_row] if has_own_rows else vectors.status,
        scores=scored.scores,
        columns=scored.columns,
        overridden={row: what_if.names for row, what_if in scored.what_if.items()},
        trace_ids=trace_ids,
    )

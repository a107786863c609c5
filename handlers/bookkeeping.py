"""What is counted and logged of a batch, once its answers stand."""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

from handlers import telemetry
from handlers.bundle import Bundle
from handlers.outcomes import Scored, refusal_of
from handlers.protocol.messages import Answer, Call, Refusal, Request
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
        self,
        requests: Sequence[Request | Refusal],
        scored: Scored | Refusal,
        answers: Sequence[Answer],
        calls: Sequence[Call],
        seconds: float,
    ) -> None:
        """Count the requests and what they were answered, and log the scores that somebody got."""
        self._count_requests(requests, answers, seconds)
        if isinstance(scored, Refusal):
            self.telemetry.add(telemetry.ERRORS, telemetry.STORE_DOWN)
            return
        self._count_vectors(scored)
        rows, request_ids = self._answered_rows(scored, answers, calls)
        if not rows:
            return
        scores = [scored.scores[row] for row in rows]
        self.telemetry.observe_all(telemetry.SCORE, scores)
        risky = sum(score > self.bundle.threshold for score in scores)
        self.telemetry.add(telemetry.PREDICTIONS, "High Risk", times=risky)
        self.telemetry.add(telemetry.PREDICTIONS, "Low Risk", times=len(scores) - risky)
        if self.log is not None:
            trace_ids = self._trace_ids(scored, answers, calls) if any(c.traceparent for c in calls) else ()
            self.log.append(_records(scored, rows, request_ids, trace_ids, seconds))

    def _count_requests(
        self, requests: Sequence[Request | Refusal], answers: Sequence[Answer], seconds: float
    ) -> None:
        count = self.telemetry
        count.observe(telemetry.LATENCY, seconds, len(requests))
        count.observe(telemetry.BATCH_REQUESTS, len(requests))
        kinds = Counter(
            ("none" if isinstance(request, Refusal) else request.protocol, answer.http_status)
            for request, answer in zip(requests, answers, strict=True)
        )
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

    def _answered_rows(
        self, scored: Scored, answers: Sequence[Answer], calls: Sequence[Call]
    ) -> tuple[list[int], list[str]]:
        """The rows whose score went out, and for each the id of the request."""
        refused = self._refused(scored)
        found: list[int] = []
        request_ids: list[str] = []
        for rows, call, answer in zip(scored.rows, calls, answers, strict=True):
            if answer.http_status == 200:
                scores = rows if not refused else [row for row in rows if row not in refused]
                found += scores
                request_ids += repeat(call.request_id, len(scores))
        return found, request_ids

    def _trace_ids(
        self, scored: Scored, answers: Sequence[Answer], calls: Sequence[Call]
    ) -> list[str | None]:
        """For each of those rows the trace of its request, where it belongs to one."""
        traces = [call._replace(request_id=call.traceparent[3:35]) for call in calls]
        return [trace_id or None for trace_id in self._answered_rows(scored, answers, traces)[1]]

    def _refused(self, scored: Scored) -> set[int]:
        """Rows without a score; nearly every batch has none, which is seen without looking at each."""
        if scored.all_is_well:
            return set()
        rows = range(len(scored.scores))
        return {row for row in rows if refusal_of(scored, row, self.bundle) is not None}


def _records(
    scored: Scored,
    rows: Sequence[int],
    request_ids: Sequence[str],
    trace_ids: Sequence[str | None],
    seconds: float,
) -> Records:
    vectors, read_row = scored.vectors, scored.read_row
    plain = not scored.what_if
    everybody = range(len(scored.scores))
    return Records(
        time=scored.now,
        latency_ms=seconds * 1000,
        request_ids=request_ids,
        rows=everybody if rows == list(everybody) else rows,
        user_ids=vectors.ids if plain else [vectors.ids[row] for row in read_row],
        timestamps=vectors.timestamps if plain else [vectors.timestamps[row] for row in read_row],
        status=vectors.status if plain else [vectors.status[row] for row in read_row],
        scores=scored.scores,
        columns=scored.columns,
        overridden={row: what_if.names for row, what_if in scored.what_if.items()},
        trace_ids=trace_ids,
    )

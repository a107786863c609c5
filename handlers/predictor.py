"""Answers batches of requests in five stages: parse -> read -> score -> answer -> record.

`Predictor.answer` is the entry. The stages follow it in this order; `batch.py` has what each of them hands to
the next. Nothing here depends on the server that receives the requests.
"""

import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from handlers import telemetry, tracing
from handlers.answering import AnswerWriter
from handlers.batch import Batch, FeatureRead, Scored
from handlers.bookkeeping import Bookkeeping
from handlers.bundle import Bundle
from handlers.identity import THROUGH_GATEWAY, pseudonym
from handlers.outcomes import store_down
from handlers.protocol import budget, fast_path, protocols
from handlers.protocol.json_answers import refuse
from handlers.protocol.messages import Answer, BadRequest, Call, Refusal, Request, Rules
from handlers.records.log import PredictionLog
from handlers.scoring.explain import Explainer
from handlers.scoring.program import Scorer
from handlers.scoring.what_if import with_overrides
from handlers.store.reader import FeatureStoreUnavailable, OnlineFeatures, Vectors
from handlers.telemetry import Telemetry
from handlers.tracing import Tracing

log = logging.getLogger("churn.handler")

BROKEN = Refusal(503, "the server failed at this request, which is counted and logged", telemetry.INTERNAL, 1)


@dataclass(frozen=True)
class Predictor:
    """A loaded archive with its feature store, metrics and prediction log; `loading.load` makes it."""

    bundle: Bundle
    features: OnlineFeatures
    scorer: Scorer
    mask_key: bytes
    clock: Callable[[], datetime]
    """Returns the present time in UTC."""
    model_name: str
    rules: Rules
    explainer: Explainer
    telemetry: Telemetry = field(default_factory=Telemetry)
    log: PredictionLog | None = None
    batch_rows: int = budget.ROWS
    """Rows that a batch may cost, see `budget`."""
    tracing: Tracing | None = None

    def answer(self, rows: Sequence[Mapping[str, Any]], calls: Sequence[Call] | None = None) -> list[Answer]:
        """One answer for each request, in the same order. Never raises.

        `rows` are the parameters of each request, `calls` what its headers state. After an unexpected error
        the requests are tried again one by one, so that only the request that causes it is refused.
        """
        calls = [Call()] * len(rows) if calls is None else calls
        try:
            batch = self._parse(rows, calls)
            if probes := batch.probes():
                return self._answer_with_probes(batch, probes)
            return self._answer_parsed(batch)
        except Exception as error:  # whatever it is, it is a bug, and must not cost a whole batch
            if len(rows) > 1:
                return [self.answer([row], [call])[0] for row, call in zip(rows, calls, strict=True)]
            self._report_bug(error)
            return [refuse(BROKEN)]

    def _answer_parsed(self, batch: Batch) -> list[Answer]:
        """The stages after `parse`."""
        read = self._read(batch)
        scored = self._score(batch, read)
        answers = self._writer.answers(batch, scored)
        self._record(batch, scored, answers)
        return answers

    def _answer_with_probes(self, batch: Batch, probes: set[int]) -> list[Answer]:
        """Probes are answered like all requests, but only counted as probes and not logged."""
        uncounted = replace(self, telemetry=Telemetry(), log=None, tracing=None)
        customers = [at for at in range(len(batch.requests)) if at not in probes]
        answers: dict[int, Answer] = {}
        for predictor, positions in ((uncounted, sorted(probes)), (self, customers)):
            if positions:
                answers |= zip(positions, predictor._answer_parsed(batch.part(positions)), strict=True)
        for at in probes:
            through = THROUGH_GATEWAY if batch.calls[at].probe == THROUGH_GATEWAY else "direct"
            self.telemetry.add(telemetry.PROBES, through)
        return [answers[at] for at in range(len(batch.requests))]

    def _parse(self, rows: Sequence[Mapping[str, Any]], calls: Sequence[Call]) -> Batch:
        """A request or its refusal for each row; what exceeds the budget of the batch is refused as well."""
        began = time.perf_counter()
        if self.tracing is not None:
            self.tracing.begin()
        parsed = [self._request(row, call) for row, call in zip(rows, calls, strict=True)]
        requests = budget.within(parsed, self.batch_rows, self.explainer.most_rows)
        if requests is not parsed:
            self.telemetry.add(telemetry.ERRORS, telemetry.BUSY, times=requests.count(budget.BUSY))
        return Batch(calls, requests, began)

    def _request(self, row: Mapping[str, Any], call: Call) -> Request | Refusal:
        try:
            single = fast_path.read(row.get("body"), self.rules, call) if len(row) == 1 else None
            return single or protocols.parse(row, self.rules, call)
        except BadRequest as error:
            self.telemetry.add(telemetry.ERRORS, telemetry.BAD_REQUEST)
            return Refusal(error.http_status, str(error))

    def _read(self, batch: Batch) -> FeatureRead | Refusal:
        """Reads each customer of the batch once; a refusal if there are features for none of them."""
        now, id_type, key = self.clock(), self.bundle.id_type, self.mask_key
        masked: list[list[str]] = [
            [] if isinstance(request, Refusal) else [pseudonym(one, id_type, key) for one in request.user_ids]
            for request in batch.requests
        ]
        # Long lists are read last, so that an error or a timeout in them does not affect single customers.
        by_length = sorted(masked, key=lambda user_ids: len(user_ids))
        ids = list(dict.fromkeys(chain.from_iterable(by_length)))
        if not ids:
            return FeatureRead(now, NO_VECTORS, [[] for _ in masked])
        self._stage(tracing.READ)
        began = time.perf_counter()
        try:
            vectors = self.features.read(ids, now)
        except FeatureStoreUnavailable as error:
            log.error("feature store read failed: %s", error)
            self._stage(tracing.WRITE)
            return store_down(error.retry_after_s)
        self._stage(tracing.SCORE)
        self.telemetry.observe(telemetry.READ, time.perf_counter() - began)
        position = {user_id: at for at, user_id in enumerate(ids)}
        return FeatureRead(now, vectors, [[position[user_id] for user_id in request] for request in masked])

    def _score(self, batch: Batch, read: FeatureRead | Refusal) -> Scored | Refusal:
        """Scores each customer and each what-if question of the batch once."""
        if isinstance(read, Refusal):
            return read
        vectors, rows = read.vectors, read.rows
        if vectors is NO_VECTORS:
            return Scored(read.now, vectors, {}, [], rows, (), {})
        columns, read_row, what_if = with_overrides(
            self.bundle.spec, vectors.columns, len(vectors.ids), rows, batch.requests
        )
        scores = self.scorer.score(columns).tolist()
        self._stage(tracing.WRITE)
        return Scored(read.now, vectors, columns, scores, rows, read_row, what_if)

    @cached_property
    def _writer(self) -> AnswerWriter:
        return AnswerWriter(self.bundle, self.explainer, self.telemetry, self.model_name)

    def _record(self, batch: Batch, scored: Scored | Refusal, answers: Sequence[Answer]) -> None:
        """Spans, metrics and the prediction log. An error in them does not change the answers."""
        seconds = time.perf_counter() - batch.began
        try:
            if self.tracing is not None:
                self.tracing.record(batch.calls, answers)
            self._bookkeeping.record(batch, scored, answers, seconds)
        except Exception as error:
            self._report_bug(error)

    @cached_property
    def _bookkeeping(self) -> Bookkeeping:
        return Bookkeeping(self.bundle, self.telemetry, self.log)

    def _stage(self, name: str) -> None:
        if self.tracing is not None:
            self.tracing.stage(name)

    def _report_bug(self, error: Exception) -> None:
        """Logs type and place of the error; its message may contain an identifier or a feature value."""
        self.telemetry.add(telemetry.ERRORS, telemetry.INTERNAL)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
        log.error("BUG: %s in %s", type(error).__name__, where)

    def health(self) -> dict[str, Any]:
        """The state of this worker.

        `ready` means that the worker can answer. It is true while the store is down, because customers then
        get an answer from their last known features or a 503; `degraded` and `store` state that it is down.
        """
        return {
            "live": True,
            "ready": True,
            "degraded": not self.features.healthy,
            "store": self.features.health(),
            "model_version": self.bundle.model_version,
        }

    def close(self) -> None:
        """Closes the prediction log first, so that the metrics sent at the end include its last counts."""
        if self.log is not None:
            self.log.close()
        self.telemetry.close()
        if self.tracing is not None:
            self.tracing.close()


NO_VECTORS = Vectors((), {}, (), ())

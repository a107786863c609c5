"""From the bodies of a batch to their answers, knowing nothing of the server that carries them."""

import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from handlers import telemetry, tracing
from handlers.bookkeeping import Bookkeeping
from handlers.bundle import Bundle, read_bundle
from handlers.environment import number
from handlers.identity import NOBODY, THROUGH_GATEWAY, pseudonym
from handlers.mask_key import read_mask_key
from handlers.outcomes import NO_SCORE, Scored, outcome_of, store_down
from handlers.protocol import budget, fast_path, protocols
from handlers.protocol.messages import (
    MAX_BODY_BYTES,
    MAX_EXPLAINED,
    Answer,
    BadRequest,
    Call,
    Explanation,
    Outcome,
    Prediction,
    Refusal,
    Request,
    Rules,
    Wants,
)
from handlers.records.log import PredictionLog
from handlers.records.record import Origin
from handlers.records.settings import open_log
from handlers.scoring.explain import CLOSE, Explainer, NoReference
from handlers.scoring.program import Scorer
from handlers.scoring.what_if import with_overrides
from handlers.store.opening import open_features
from handlers.store.reader import FeatureStoreUnavailable, OnlineFeatures, Vectors
from handlers.telemetry import Telemetry
from handlers.tracing import Tracing, open_tracing

log = logging.getLogger("churn.handler")

BROKEN = Refusal(503, "the server failed at this request, which is counted and logged", telemetry.INTERNAL, 1)
PROBE = [{"body": b'{"user_id": "%s"}' % NOBODY.encode()}]
LISTED = {"v1": "instances", "native_list": "body"}
"""What the field is called in which a protocol lists its customers, each with an answer of its own."""


@dataclass(frozen=True)
class Predictor:
    """A loaded bundle. `preprocess`, `inference` and `postprocess` each work on a whole batch."""

    bundle: Bundle
    features: OnlineFeatures
    scorer: Scorer
    mask_key: bytes
    clock: Callable[[], datetime]
    model_name: str
    rules: Rules
    explainer: Explainer
    telemetry: Telemetry = field(default_factory=Telemetry)
    log: PredictionLog | None = None
    batch_rows: int = budget.ROWS
    """What a batch may cost, see `budget`."""
    tracing: Tracing | None = None

    @cached_property
    def bookkeeping(self) -> Bookkeeping:
        return Bookkeeping(self.bundle, self.telemetry, self.log)

    @cached_property
    def template(self) -> fast_path.Template:
        return fast_path.Template(self.model_name, self.bundle.model_version, self.bundle.threshold)

    def preprocess(self, rows: Sequence[Mapping[str, Any]], calls: Sequence[Call]) -> list[Request | Refusal]:
        """A request or its refusal for each row. Each body is read for itself: a bad one never touches its
        neighbours. What the batch costs more than its budget is refused.
        """
        requests = [self._parse(row, call) for row, call in zip(rows, calls, strict=True)]
        fitting = budget.within(requests, self.batch_rows, self.explainer.most_rows)
        if fitting is not requests:
            self.telemetry.add(telemetry.ERRORS, telemetry.BUSY, times=fitting.count(budget.BUSY))
        return list(fitting)

    def inference(self, requests: Sequence[Request | Refusal]) -> Scored | Refusal:
        """Every customer of the batch read once and scored once; a refusal when nobody can be read."""
        now = self.clock()
        asked: list[list[str]] = [
            [] if isinstance(request, Refusal) else [self._masked(user_id) for user_id in request.user_ids]
            for request in requests
        ]
        # long lists are read last: what goes wrong with them costs no lone customer the answer
        by_length = sorted(asked, key=lambda ids: len(ids))
        distinct = list(dict.fromkeys(chain.from_iterable(by_length)))
        if not distinct:
            return Scored(now, Vectors((), {}, (), ()), {}, [], asked_rows(asked, {}), (), {})
        self._stage(tracing.READ)
        began = time.perf_counter()
        try:
            vectors = self.features.read(distinct, now)
        except FeatureStoreUnavailable as error:
            log.error("feature store read failed: %s", error)
            self._stage(tracing.WRITE)
            return store_down(error.retry_after_s)
        self._stage(tracing.SCORE)
        self.telemetry.observe(telemetry.READ, time.perf_counter() - began)
        rows = asked_rows(asked, {user_id: row for row, user_id in enumerate(distinct)})
        columns, read_row, what_if = with_overrides(
            self.bundle.spec, vectors.columns, len(distinct), rows, requests
        )
        scores = self.scorer.score(columns).tolist()
        self._stage(tracing.WRITE)
        return Scored(now, vectors, columns, scores, rows, read_row, what_if)

    def postprocess(self, requests: Sequence[Request | Refusal], scored: Scored | Refusal) -> list[Answer]:
        """The answer of each request, in its shape."""
        if isinstance(scored, Refusal):
            return [protocols.refuse(r if isinstance(r, Refusal) else scored) for r in requests]
        return [
            protocols.refuse(request) if isinstance(request, Refusal) else self._answer(request, rows, scored)
            for request, rows in zip(requests, scored.rows, strict=True)
        ]

    def answer(self, rows: Sequence[Mapping[str, Any]], calls: Sequence[Call] | None = None) -> list[Answer]:
        """All three, for a server that has nothing to do in between. Answers whatever happens.

        What breaks in a way nobody thought of is tried again request by request, so that the one at fault is
        refused alone.
        """
        calls = [Call()] * len(rows) if calls is None else calls
        began = time.perf_counter()
        if self.tracing is not None:
            self.tracing.begin()
        try:
            requests = self.preprocess(rows, calls)
            if any(map(is_probe, requests)):
                return self._beside_probes(requests, calls, began)
            scored = self.inference(requests)
            answers = self.postprocess(requests, scored)
        except Exception as error:
            # open-ended on purpose: an error here is a bug, and a bug is to cost one request, not a batch
            if len(rows) > 1:
                return [self.answer([row], [call])[0] for row, call in zip(rows, calls, strict=True)]
            self.telemetry.add(telemetry.ERRORS, telemetry.INTERNAL)
            log.error("BUG: %s", _where(error))
            return [protocols.refuse(BROKEN)]
        try:
            self._record(requests, scored, answers, calls, time.perf_counter() - began)
        except Exception as error:  # the answers stand, whatever becomes of their bookkeeping
            self.telemetry.add(telemetry.ERRORS, telemetry.INTERNAL)
            log.error("BUG: %s", _where(error))
        return answers

    def _beside_probes(
        self, requests: Sequence[Request | Refusal], calls: Sequence[Call], began: float
    ) -> list[Answer]:
        """Our own questions are answered like all others, and neither counted nor logged."""
        twin = replace(self, telemetry=Telemetry(), log=None, tracing=None)
        answers: dict[int, Answer] = {}
        for predictor, wanted in ((twin, True), (self, False)):
            which = [number for number, request in enumerate(requests) if is_probe(request) is wanted]
            if which:
                asked = [requests[number] for number in which]
                scored = predictor.inference(asked)
                answered = predictor.postprocess(asked, scored)
                answers |= zip(which, answered, strict=True)
                if not wanted:
                    those = [calls[number] for number in which]
                    self._record(asked, scored, answered, those, time.perf_counter() - began)
        for request, call in zip(requests, calls, strict=True):
            if is_probe(request):
                through = THROUGH_GATEWAY if call.probe == THROUGH_GATEWAY else "direct"
                self.telemetry.add(telemetry.PROBES, through)
        return [answers[number] for number in range(len(requests))]

    def health(self) -> dict[str, Any]:
        """How this worker does. Ready means that it can answer: whoever asks is answered, by last known
        features or with a 503, while the store is down. `degraded` and `store` say that it is.
        """
        return {
            "live": True,
            "ready": True,
            "degraded": not self.features.healthy,
            "store": self.features.health(),
            "model_version": self.bundle.model_version,
        }

    def close(self) -> None:
        """Write what the prediction log holds, then send what is counted: the end of the log counts, too."""
        if self.log is not None:
            self.log.close()
        self.telemetry.close()
        if self.tracing is not None:
            self.tracing.close()

    def _stage(self, name: str) -> None:
        if self.tracing is not None:
            self.tracing.stage(name)

    def _record(
        self,
        requests: Sequence[Request | Refusal],
        scored: Scored | Refusal,
        answers: Sequence[Answer],
        calls: Sequence[Call],
        seconds: float,
    ) -> None:
        """Spans first: their end is that of the answers."""
        if self.tracing is not None:
            self.tracing.record(calls, answers)
        self.bookkeeping.record(requests, scored, answers, calls, seconds)

    def _parse(self, row: Mapping[str, Any], call: Call) -> Request | Refusal:
        try:
            lone = fast_path.read(row.get("body"), self.rules, call) if len(row) == 1 else None
            return lone or protocols.parse(row, self.rules, call)
        except BadRequest as error:
            self.telemetry.add(telemetry.ERRORS, telemetry.BAD_REQUEST)
            return Refusal(error.http_status, str(error))

    def _masked(self, user_id: int | str) -> str:
        return pseudonym(user_id, self.bundle.id_type, self.mask_key)

    def _answer(self, request: Request, rows: Sequence[int], scored: Scored) -> Answer:
        if scored.all_is_well and self.template.fits(request):
            return self.template.answer(request, [scored.scores[row] for row in rows])
        wants = request.wants
        outcomes = [outcome_of(scored, row, self.bundle, wants) for row in rows]
        if NO_SCORE in outcomes and request.protocol in LISTED:
            # a fault of the model, not of one customer: as a 200 no gateway and no rule would see it
            where = f"{LISTED[request.protocol]}[{outcomes.index(NO_SCORE)}]: "
            return protocols.refuse(NO_SCORE, where)
        if wants.reasons or wants.explanation:
            try:
                outcomes = self._explained(outcomes, rows, scored, wants)
            except NoReference as error:
                self.telemetry.add(telemetry.ERRORS, telemetry.NO_REFERENCE)
                return protocols.refuse(Refusal(503, str(error), telemetry.NO_REFERENCE, 60))
        return protocols.respond(request, outcomes, self.model_name, self.bundle.model_version)

    def _explained(
        self, outcomes: Sequence[Outcome], rows: Sequence[int], scored: Scored, wants: Wants
    ) -> list[Outcome]:
        which = [row for row, outcome in zip(rows, outcomes, strict=True) if isinstance(outcome, Prediction)]
        why = dict(zip(which, self.explainer.explain(scored.columns, which), strict=True)) if which else {}
        return [
            self._with_reasons(outcome, scored, row, why[row], wants)
            if isinstance(outcome, Prediction)
            else outcome
            for row, outcome in zip(rows, outcomes, strict=True)
        ]

    def _with_reasons(
        self, outcome: Prediction, scored: Scored, row: int, why: Explanation, wants: Wants
    ) -> Prediction:
        if why.additivity_gap > CLOSE:
            self.telemetry.add(telemetry.ERRORS, telemetry.ADDITIVITY)
        reasons = self.explainer.reasons(scored.columns, row, why, wants.reasons)
        return replace(outcome, reasons=tuple(reasons), explanation=why if wants.explanation else None)


def load(model_dir: Path, environment: Mapping[str, str], model_name: str) -> Predictor:
    """Check the archive against the feature store, load it, and pay the first read's and score's cost now.

    Raises BundleError with one line that says what does not fit.
    """
    bundle = read_bundle(model_dir)
    mask_key = read_mask_key(environment, bundle.key_check)
    offset = timedelta(seconds=number(environment, "CHURN_CLOCK_OFFSET_S", "0"))
    max_instances = int(number(environment, "CHURN_MAX_INSTANCES", "1000", above=0))
    variant = environment.get("CHURN_VARIANT") or "stable"
    batch_rows = int(number(environment, "CHURN_BATCH_ROWS", str(budget.ROWS), above=0))
    max_bytes = int(number(environment, "CHURN_MAX_REQUEST_BYTES", str(MAX_BODY_BYTES), above=0))
    max_explained = int(number(environment, "CHURN_MAX_EXPLAINED", str(MAX_EXPLAINED), above=0))
    rules = replace(rules_of(bundle, max_instances, model_name, max_bytes), max_explained=max_explained)
    features = open_features(model_dir, bundle, environment)
    scorer = Scorer(bundle.program, bundle.numeric, bundle.vocabulary)
    origin = Origin(bundle.model_version, bundle.digest, variant, bundle.threshold, input_types(bundle))
    sending = Telemetry(bundle.model_version, variant, telemetry.worker_name())
    sending.watch_store(features.stats)
    records = open_log(environment, origin)
    if records is not None:
        sending.watch_log(records.counts, records.failures)
    predictor = Predictor(
        bundle=bundle,
        features=features,
        scorer=scorer,
        mask_key=mask_key,
        clock=lambda: datetime.now(UTC) + offset,
        model_name=model_name,
        rules=rules,
        explainer=Explainer(scorer.score, bundle.spec, bundle.reference),
        telemetry=sending,
        log=records,
        batch_rows=batch_rows,
        tracing=open_tracing(environment, model_name, bundle.model_version, variant),
    )
    # a warm-up prediction, which is neither counted nor logged
    predictor.answer(PROBE)
    if not features.healthy:
        log.error("the online store cannot be read yet: answering 503 until it can")
    if not predictor.explainer.can_explain:
        log.error("bundle.json lacks the reference customer: no reasons and no explanations; package again")
    return predictor


def is_probe(request: Request | Refusal) -> bool:
    """Whether it asks for nobody alone: health checks, readiness, warming up."""
    if isinstance(request, Refusal) or not request.user_ids or request.user_ids[0] != NOBODY:
        return False
    return all(user_id == NOBODY for user_id in request.user_ids)


def rules_of(
    bundle: Bundle, max_instances: int, model_name: str = "", max_body_bytes: int = MAX_BODY_BYTES
) -> Rules:
    """What bodies may hold for this bundle."""
    return Rules(
        id_type=bundle.id_type,
        max_instances=max_instances,
        types={feature["name"]: feature["dtype"] for feature in bundle.spec["features"]},
        derived={r["name"]: (r["numerator"], r["denominator"]) for r in bundle.spec["derived"]},
        model_name=model_name,
        model_version=bundle.model_version if model_name else "",
        max_body_bytes=max_body_bytes,
    )


def input_types(bundle: Bundle) -> dict[str, str]:
    """Input of the network -> its declared type; derived ones are float64."""
    declared = {feature["name"]: str(feature["dtype"]) for feature in bundle.spec["features"]}
    return {name: declared.get(name, "float64") for name in bundle.inputs}


def asked_rows(asked: Sequence[Sequence[str]], row_of: Mapping[str, int]) -> list[list[int]]:
    """For each request the rows of the customers that it asks for."""
    return [[row_of[user_id] for user_id in ids] for ids in asked]


def _where(error: BaseException) -> str:
    """The error's type and place; its message may hold an identifier or a feature value."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno} {frame.name}"

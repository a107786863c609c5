"""From the bodies of a batch to their answers, knowing nothing of the server that carries them."""

import logging
import math
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from handlers import protocols, telemetry, usual
from handlers.bundle import Bundle, BundleError, read_bundle
from handlers.environment import number
from handlers.explain import CLOSE, Explainer, NoReference
from handlers.features import FeatureStoreUnavailable, OnlineFeatures, Vectors, open_features
from handlers.identity import NOBODY, pseudonym
from handlers.log_records import Origin, Records
from handlers.log_settings import open_log
from handlers.messages import (
    MAX_BODY_BYTES,
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
from handlers.prediction_log import PredictionLog
from handlers.scoring import Scorer
from handlers.telemetry import Telemetry
from handlers.what_if import WhatIf, with_overrides

log = logging.getLogger("churn.handler")

UNKNOWN = Refusal(404, "unknown user_id")
NO_FEATURES = Refusal(503, "the feature store cannot be read now; try again later", telemetry.STORE_DOWN, 1)
NO_SCORE = Refusal(503, "the model has no finite score for this customer", telemetry.NO_SCORE, 60)
BROKEN = Refusal(503, "the server failed at this request, which is counted and logged", telemetry.INTERNAL, 1)
PROBE = [{"body": b'{"user_id": "%s"}' % NOBODY.encode()}]


@dataclass(frozen=True)
class Scored:
    """All that a batch asked for, scored: first the customers read, then a row a what-if question."""

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

    @cached_property
    def template(self) -> usual.Template:
        return usual.Template(self.model_name, self.bundle.model_version, self.bundle.threshold)

    def preprocess(self, rows: Sequence[Mapping[str, Any]], calls: Sequence[Call]) -> list[Request | Refusal]:
        """Read each body for itself: a bad one never touches its neighbours."""
        return [self._parse(row, call) for row, call in zip(rows, calls, strict=True)]

    def inference(self, requests: Sequence[Request | Refusal]) -> Scored | Refusal:
        """Every customer of the batch is read once and scored once; a refusal when nobody can be read."""
        now = self.clock()
        asked = [
            [] if isinstance(request, Refusal) else [self._masked(user_id) for user_id in request.user_ids]
            for request in requests
        ]
        distinct = list(dict.fromkeys(chain.from_iterable(asked)))
        if not distinct:
            return Scored(now, Vectors((), {}, (), ()), {}, [], asked_rows(asked, {}), (), {})
        began = time.perf_counter()
        try:
            vectors = self.features.read(distinct, now)
        except FeatureStoreUnavailable as error:
            log.error("feature store read failed: %s", error)
            return Refusal(NO_FEATURES.http_status, NO_FEATURES.error, NO_FEATURES.code, error.retry_after_s)
        self.telemetry.observe(telemetry.READ, time.perf_counter() - began)
        rows = asked_rows(asked, {user_id: row for row, user_id in enumerate(distinct)})
        columns, read_row, what_if = with_overrides(
            self.bundle.spec, vectors.columns, len(distinct), rows, requests
        )
        scores = self.scorer.score(columns).tolist()
        return Scored(now, vectors, columns, scores, rows, read_row, what_if)

    def postprocess(self, requests: Sequence[Request | Refusal], scored: Scored | Refusal) -> list[Answer]:
        """Each answer in the shape of its request."""
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
        twin = replace(self, telemetry=Telemetry(), log=None)
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
        self.telemetry.add(telemetry.PROBES, times=sum(map(is_probe, requests)))
        return [answers[number] for number in range(len(requests))]

    def close(self) -> None:
        """Write what the prediction log holds, then send what is counted: the end of the log counts, too."""
        if self.log is not None:
            self.log.close()
        self.telemetry.close()

    def _parse(self, row: Mapping[str, Any], call: Call) -> Request | Refusal:
        try:
            lone = usual.read(row.get("body"), self.rules, call) if len(row) == 1 else None
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
        outcomes: list[Outcome] = [self._outcome(scored, row, wants) for row in rows]
        if wants.reasons or wants.explanation:
            try:
                outcomes = self._explained(outcomes, rows, scored, wants)
            except NoReference as error:
                return protocols.refuse(Refusal(400, f"parameters.reasons: {error}"))
        return protocols.respond(request, outcomes, self.model_name, self.bundle.model_version)

    def _outcome(self, scored: Scored, row: int, wants: Wants) -> Outcome:
        refusal = self._refusal(scored, row)
        if refusal is not None:
            return refusal
        read = scored.read_row[row]
        score = scored.scores[row]
        what_if = scored.what_if.get(row)
        taken = scored.vectors.timestamps[read]
        return Prediction(
            churn_probability=score,
            prediction="High Risk" if score > self.bundle.threshold else "Low Risk",
            threshold=self.bundle.threshold,
            status=_status(scored, row),
            status_reason=scored.vectors.reasons[read] if scored.vectors.reasons else None,
            overridden=what_if.names if what_if else (),
            features=self._features(scored, row) if wants.features else None,
            feature_age_s=(scored.now - taken).total_seconds() if wants.age and taken else None,
        )

    def _features(self, scored: Scored, row: int) -> dict[str, Any]:
        return {name: scored.columns[name][row] for name in self.bundle.inputs}

    def _refusal(self, scored: Scored, row: int) -> Refusal | None:
        """Why the customer of this row gets no score; None when they get one."""
        status = _status(scored, row)
        what_if = scored.what_if.get(row)
        if not (what_if and what_if.complete):
            if status == "unknown" and self.bundle.spec.get("on_unknown", "refuse") != "score":
                return UNKNOWN
            if status == "refused":
                if (again := scored.vectors.retry_after_s) is not None:  # of a store that is down
                    return Refusal(NO_FEATURES.http_status, NO_FEATURES.error, NO_FEATURES.code, again)
                reasons = scored.vectors.reasons
                why = (reasons[scored.read_row[row]] if reasons else None) or "no features to score from"
                if (
                    scored.vectors.retry_after_s is not None
                ):  # the store is down, and nothing of them is known
                    return Refusal(503, why, telemetry.STORE_DOWN, scored.vectors.retry_after_s)
                return Refusal(422, why, "refused")
        if not math.isfinite(scored.scores[row]):
            return NO_SCORE
        return None

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
        return Prediction(
            outcome.churn_probability,
            outcome.prediction,
            outcome.threshold,
            outcome.status,
            outcome.status_reason,
            outcome.overridden,
            outcome.features,
            outcome.feature_age_s,
            tuple(reasons),
            why if wants.explanation else None,
        )

    def _record(
        self,
        requests: Sequence[Request | Refusal],
        scored: Scored | Refusal,
        answers: Sequence[Answer],
        calls: Sequence[Call],
        seconds: float,
    ) -> None:
        """Metrics and the prediction log, once the answers stand."""
        count = self.telemetry
        count.observe(telemetry.LATENCY, seconds, len(requests))
        count.observe(telemetry.BATCH_REQUESTS, len(requests))
        kinds = Counter(
            ("none" if isinstance(request, Refusal) else request.protocol, answer.http_status)
            for request, answer in zip(requests, answers, strict=True)
        )
        for (protocol, status), times in kinds.items():
            count.add(telemetry.REQUESTS, protocol, str(status), times=times)
        if isinstance(scored, Refusal):
            count.add(telemetry.ERRORS, telemetry.STORE_DOWN)
            return
        self._count_vectors(scored)
        records: list[int] = []
        request_ids: list[str] = []
        refused = self._refused(scored)
        for rows, call, answer in zip(scored.rows, calls, answers, strict=True):
            if answer.http_status != 200:
                continue  # nobody was told a score
            told = rows if not refused else [row for row in rows if row not in refused]
            records += told
            request_ids += repeat(call.request_id, len(told))
        if not records:
            return
        scores = [scored.scores[row] for row in records]
        count.observe_all(telemetry.SCORE, scores)
        risky = sum(score > self.bundle.threshold for score in scores)
        count.add(telemetry.PREDICTIONS, "High Risk", times=risky)
        count.add(telemetry.PREDICTIONS, "Low Risk", times=len(scores) - risky)
        if self.log is not None:
            self.log.append(self._records(scored, records, request_ids, seconds))

    def _refused(self, scored: Scored) -> set[int]:
        """Rows without a score; nearly every batch has none, which is seen without looking at each."""
        if scored.all_is_well:
            return set()
        return {row for row in range(len(scored.scores)) if self._refusal(scored, row) is not None}

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
        if not math.isfinite(sum(scored.scores)):
            lacking = sum(not math.isfinite(score) for score in scored.scores)
            count.add(telemetry.ERRORS, telemetry.NO_SCORE, times=lacking)

    def _records(
        self, scored: Scored, rows: Sequence[int], request_ids: Sequence[str], seconds: float
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
        )


def load(model_dir: Path, environment: Mapping[str, str], model_name: str) -> Predictor:
    """Check the archive against the feature store, load it, and pay the first read's and score's cost now.

    Raises BundleError with one line that says what does not fit.
    """
    bundle = read_bundle(model_dir)
    mask_key = read_mask_key(environment)
    offset = timedelta(seconds=number(environment, "CHURN_CLOCK_OFFSET_S", "0"))
    max_instances = int(number(environment, "CHURN_MAX_INSTANCES", "1000", above=0))
    variant = environment.get("CHURN_VARIANT") or "stable"
    max_bytes = int(number(environment, "CHURN_MAX_REQUEST_BYTES", str(MAX_BODY_BYTES), above=0))
    rules = rules_of(bundle, max_instances, model_name, max_bytes)
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
    )
    # by a twin that neither counts nor logs
    first = replace(predictor, telemetry=Telemetry(), log=None)
    if first.answer(PROBE)[0].http_status == NO_FEATURES.http_status:
        log.error("the online store cannot be read yet: answering 503 until it can")
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


def read_mask_key(environment: Mapping[str, str]) -> bytes:
    """The key that identifiers are masked with, from CHURN_MASK_KEY_FILE, else from CHURN_MASK_KEY."""
    if file := environment.get("CHURN_MASK_KEY_FILE"):
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"CHURN_MASK_KEY_FILE: cannot be read: {type(error).__name__}") from None
    else:
        text = environment.get("CHURN_MASK_KEY", "")
    if not text.strip():
        raise BundleError("no mask key: set CHURN_MASK_KEY_FILE or CHURN_MASK_KEY")
    return text.strip().encode()


def asked_rows(asked: Sequence[Sequence[str]], row_of: Mapping[str, int]) -> list[list[int]]:
    """For each request the rows of the customers that it asks for."""
    return [[row_of[user_id] for user_id in ids] for ids in asked]


def _status(scored: Scored, row: int) -> str:
    return scored.vectors.status[scored.read_row[row]]


def _where(error: BaseException) -> str:
    """The error's type and place; its message may hold an identifier or a feature value."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno} {frame.name}"

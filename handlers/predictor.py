"""From the bodies of a batch to their answers, knowing nothing of the server that carries them."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handlers import features, protocols
from handlers.bundle import Bundle, BundleError, read_bundle
from handlers.identity import pseudonym
from handlers.protocols import Answer, Outcome, Prediction, Refusal, Request
from handlers.scoring import Scorer

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore

log = logging.getLogger("churn.handler")

UNKNOWN = Refusal(404, "unknown user_id")
NO_FEATURES = Refusal(503, "the feature store cannot be read now; try again later")
NO_SCORE = Refusal(503, "the model has no finite score for this customer")


@dataclass(frozen=True)
class Predictor:
    """A loaded bundle. `preprocess`, `inference` and `postprocess` each work on a whole batch."""

    bundle: Bundle
    store: "FeatureStore"
    service: "FeatureService"
    scorer: Scorer
    mask_key: bytes
    clock: Callable[[], datetime]
    model_name: str
    max_instances: int

    def preprocess(self, rows: Sequence[Mapping[str, Any]]) -> list[Request | Refusal]:
        """Read each body for itself: a bad one never touches its neighbours."""
        return [self._parse(row) for row in rows]

    def inference(self, requests: Sequence[Request | Refusal]) -> list[list[Outcome] | Refusal]:
        """An outcome a user id. Every customer of the batch is read once and scored once."""
        masked = [
            [] if isinstance(request, Refusal) else [self._masked(user_id) for user_id in request.user_ids]
            for request in requests
        ]
        try:
            outcome_of = self._outcomes(list(dict.fromkeys(user_id for ids in masked for user_id in ids)))
        except features.FeatureStoreUnavailable as error:
            log.error("feature store read failed: %s", error)
            return [request if isinstance(request, Refusal) else NO_FEATURES for request in requests]
        return [
            request if isinstance(request, Refusal) else [outcome_of[user_id] for user_id in ids]
            for request, ids in zip(requests, masked, strict=True)
        ]

    def postprocess(
        self, requests: Sequence[Request | Refusal], outcomes: Sequence[list[Outcome] | Refusal]
    ) -> list[Answer]:
        """Each answer in the shape of its request."""
        return [self._answer(request, outcome) for request, outcome in zip(requests, outcomes, strict=True)]

    def answer(self, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """All three, for a server that has nothing to do in between."""
        requests = self.preprocess(rows)
        return self.postprocess(requests, self.inference(requests))

    def _answer(self, request: Request | Refusal, outcome: list[Outcome] | Refusal) -> Answer:
        if isinstance(request, Refusal):
            return protocols.refuse(request)
        if isinstance(outcome, Refusal):
            return protocols.refuse(outcome)
        return protocols.respond(request, outcome, self.model_name, self.bundle.model_version)

    def _parse(self, row: Mapping[str, Any]) -> Request | Refusal:
        try:
            return protocols.parse(row, self.bundle.id_type, self.max_instances)
        except protocols.BadRequest as error:
            return Refusal(400, str(error))

    def _masked(self, user_id: int | str) -> str:
        return pseudonym(user_id, self.bundle.id_type, self.mask_key)

    def _outcomes(self, ids: Sequence[str]) -> dict[str, Outcome]:
        vectors = features.read(self.store, self.service, self.bundle, ids, self.clock())
        scores = self.scorer.score(vectors.columns).tolist()
        return {
            user_id: self._outcome(vectors, position, scores[position])
            for position, user_id in enumerate(vectors.ids)
        }

    def _outcome(self, vectors: features.Vectors, position: int, score: float) -> Outcome:
        status = vectors.status[position]
        if status == "unknown":
            return UNKNOWN
        if not math.isfinite(score):
            return NO_SCORE
        return Prediction(
            churn_probability=score,
            prediction="High Risk" if score > self.bundle.threshold else "Low Risk",
            features={name: column[position] for name, column in vectors.columns.items()},
            status=status,
        )


def load(model_dir: Path, environment: Mapping[str, str], model_name: str) -> Predictor:
    """Check the archive against the feature store, load it, and pay the first read's and score's cost now.

    Raises BundleError with one line that says what does not fit.
    """
    bundle = read_bundle(model_dir)
    mask_key = read_mask_key(environment)
    offset = timedelta(seconds=_number(environment, "CHURN_CLOCK_OFFSET_S", "0"))
    max_instances = int(_number(environment, "CHURN_MAX_INSTANCES", "1000"))
    store, service = features.open_store(model_dir, bundle)
    predictor = Predictor(
        bundle=bundle,
        store=store,
        service=service,
        scorer=Scorer(bundle.program, bundle.numeric, bundle.vocabulary),
        mask_key=mask_key,
        clock=lambda: datetime.now(UTC) + offset,
        model_name=model_name,
        max_instances=max_instances,
    )
    nobody = [{"body": b'{"user_id": "u_%032d"}' % 0}]
    if predictor.answer(nobody)[0].http_status == NO_FEATURES.http_status:
        log.error("the online store cannot be read yet: answering 503 until it can")
    return predictor


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


def _number(environment: Mapping[str, str], name: str, default: str) -> float:
    text = environment.get(name, default)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BundleError(f"{name}: expected a number, found {text!r}")
    return value

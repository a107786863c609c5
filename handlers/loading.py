"""Loads an unpacked archive: its folder and the worker's environment become a `Predictor`."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from handlers import telemetry
from handlers.bundle import Bundle, read_bundle
from handlers.environment import number
from handlers.identity import PROBE_ID
from handlers.mask_key import read_mask_key
from handlers.predictor import Predictor
from handlers.protocol import budget
from handlers.protocol.messages import MAX_BODY_BYTES, MAX_EXPLAINED, Rules
from handlers.records.record import Origin
from handlers.records.settings import open_log
from handlers.scoring.explain import Explainer
from handlers.scoring.program import Scorer
from handlers.store.opening import open_features
from handlers.telemetry import Telemetry
from handlers.tracing import open_tracing

log = logging.getLogger("churn.handler")

PROBE = [{"body": b'{"user_id": "%s"}' % PROBE_ID.encode()}]


def load(model_dir: Path, environment: Mapping[str, str], model_name: str) -> Predictor:
    """Checks the archive against the feature store, loads it, and answers one request, so that the first
    customer does not wait for what is done once.

    Raises BundleError with one line that states what does not fit together.
    """
    bundle = read_bundle(model_dir)
    mask_key = read_mask_key(environment, bundle.key_check)
    offset = timedelta(seconds=number(environment, "CHURN_CLOCK_OFFSET_S", "0"))
    variant = environment.get("CHURN_VARIANT") or "stable"
    rules = read_rules(environment, bundle, model_name)
    batch_rows = int(number(environment, "CHURN_BATCH_ROWS", str(budget.ROWS), above=0))
    features = open_features(model_dir, bundle, environment)
    scorer = Scorer(bundle.program, bundle.numeric, bundle.vocabulary)
    origin = Origin(bundle.model_version, bundle.digest, variant, bundle.threshold, input_types(bundle))
    metrics = Telemetry(bundle.model_version, variant, telemetry.worker_name())
    metrics.watch_store(features.stats)
    records = open_log(environment, origin)
    if records is not None:
        metrics.watch_log(records.counts, records.failures)
    predictor = Predictor(
        bundle=bundle,
        features=features,
        scorer=scorer,
        mask_key=mask_key,
        clock=lambda: datetime.now(UTC) + offset,
        model_name=model_name,
        rules=rules,
        explainer=Explainer(scorer.score, bundle.spec, bundle.reference),
        telemetry=metrics,
        log=records,
        batch_rows=batch_rows,
        tracing=open_tracing(environment, model_name, bundle.model_version, variant),
    )
    predictor.answer(PROBE)
    if not features.healthy:
        log.error("the online store cannot be read yet: answering 503 until it can")
    if not predictor.explainer.can_explain:
        log.error("bundle.json lacks the reference customer: no reasons and no explanations; package again")
    return predictor


def read_rules(environment: Mapping[str, str], bundle: Bundle, model_name: str) -> Rules:
    """What the bodies of requests may contain. Raises BundleError for a limit that is no positive number."""

    def limit(name: str, default: int) -> int:
        return int(number(environment, name, str(default), above=0))

    return Rules(
        id_type=bundle.id_type,
        max_instances=limit("CHURN_MAX_INSTANCES", 1000),
        types={feature["name"]: feature["dtype"] for feature in bundle.spec["features"]},
        derived={r["name"]: (r["numerator"], r["denominator"]) for r in bundle.spec["derived"]},
        model_name=model_name,
        model_version=bundle.model_version,
        max_explained=limit("CHURN_MAX_EXPLAINED", MAX_EXPLAINED),
        max_body_bytes=limit("CHURN_MAX_REQUEST_BYTES", MAX_BODY_BYTES),
    )


def input_types(bundle: Bundle) -> dict[str, str]:
    """Input of the network -> its declared type; derived features are float64."""
    declared = {feature["name"]: str(feature["dtype"]) for feature in bundle.spec["features"]}
    return {name: declared.get(name, "float64") for name in bundle.inputs}

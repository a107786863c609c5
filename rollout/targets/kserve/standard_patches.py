"""Standard mode: the patch of an InferenceService at each step. The canary is an entry in a list beside the
predictor. Each function returns None where nothing has to change."""

import hashlib

from rollout.targets.kserve.cluster import ClusterError, Object, Patch
from rollout.targets.kserve.marks import (
    MINIMUM,
    REPLICAS,
    content_of,
    described,
    name_of,
    predictor,
    refuse_local,
    refuse_stranger,
    sha256_of,
)
from rollout.targets.kserve.sizes import Size, minimum_before, stable_replicas
from rollout.targets.target import Candidate


def canary_of(service: Object) -> Object | None:
    """The one entry of spec.canary. Raises ClusterError where there are several."""
    entries = service["spec"].get("canary") or []
    if len(entries) > 1:
        raise ClusterError(
            f"InferenceService {name_of(service)}: spec.canary: {len(entries)} entries, and a rollout knows"
            " one; remove the others"
        )
    return entries[0] if entries else None


def workload(service: Object, part: Object) -> str:
    """KServe's name of the Deployment and the Service of a predictor."""
    middle = f"-{part['name']}" if part.get("name") else ""
    return f"{name_of(service)}{middle}-predictor"


def predictor_name(candidate: Candidate) -> str:
    """Unique for each folder in the store: an entry that is edited in place would be ready by its old
    pods."""
    return f"v{candidate.version}-{hashlib.sha256(candidate.archive.encode()).hexdigest()[:4]}"


def standard_canary(service: Object, candidate: Candidate, stable_pods: int) -> Patch | None:
    """An entry at 0 %. `stable_pods`: stable's pods now, which serve all traffic."""
    part = predictor(service)
    entry = canary_of(service)
    if sha256_of(part) == candidate.sha256 or described(part).archive == candidate.archive:
        raise ClusterError(f"candidate {candidate.sha256[:12]}: is what {name_of(service)} serves already")
    if entry is not None and sha256_of(entry["predictor"]) == candidate.sha256:
        return None
    refuse_local(candidate)
    content = content_of(candidate, described(part))
    # the full CRD requires the key `name` in a canary's model, and the webhook refuses any value of it
    model = {**part["model"], **content["model"], "name": ""}
    minimum = stable_replicas(service) if entry is None else minimum_before(service, entry)
    annotations = {key: text for key, text in content["annotations"].items() if text is not None}
    fresh = {
        "name": predictor_name(candidate),
        "minReplicas": 1,
        "annotations": annotations | {REPLICAS: str(max(stable_pods, minimum)), MINIMUM: str(minimum)},
        "model": model,
    }
    return {"spec": {"canary": [{"trafficPercent": 0, "predictor": fresh}]}}


def standard_weight(service: Object, sha256: str | None, percent: int, pods: Size | None) -> Patch | None:
    """`pods` None: as many as there are. Raises ClusterError when the canary does not have the model that was
    judged any more."""
    entry = _entry(service, sha256)
    wanted = {**entry, "trafficPercent": percent}
    if pods is None:
        return None if wanted == entry else {"spec": {"canary": [wanted]}}
    wanted["predictor"] = {**entry["predictor"], "minReplicas": pods.canary}
    if wanted == entry and stable_replicas(service) == pods.minimum:
        return None
    return {"spec": {"predictor": {"minReplicas": pods.minimum}, "canary": [wanted]}}


def standard_promoted(service: Object, sha256: str) -> Patch | None:
    """The canary's pods become the predictor's: with the same name, model and annotations none restarts. An
    autoscaler continues from their number."""
    part = predictor(service)
    if sha256_of(part) == sha256 and canary_of(service) is None:
        return None
    entry = _entry(service, sha256)
    chosen = entry["predictor"]
    model = {key: value for key, value in chosen["model"].items() if key != "name"}
    content = {
        "name": chosen["name"],
        "annotations": chosen["annotations"],
        "model": model,
        "minReplicas": minimum_before(service, entry),
    }
    return {"spec": {"predictor": content, "canary": []}}


def standard_withdrawn(service: Object) -> Patch | None:
    """Remove all entries."""
    entries = service["spec"].get("canary") or []
    if not entries:
        return None
    minimum = minimum_before(service, entries[0])
    return {"spec": {"predictor": {"minReplicas": minimum}, "canary": []}}


def _entry(service: Object, sha256: str | None) -> Object:
    entry = canary_of(service)
    if entry is None:
        raise ClusterError(f"InferenceService {name_of(service)}: the canary is gone: somebody took it away")
    refuse_stranger(service, entry["predictor"], sha256)
    return entry

"""Standard mode: the patch of an InferenceService at each step. The canary is an entry in a list beside the
predictor. Each function returns None where nothing has to change."""

import hashlib

from rollout.targets.kserve.cluster import ClusterError, Object, Patch
from rollout.targets.kserve.marks import (
    MINIMUM,
    PREVIOUS,
    REPLICAS,
    TURN,
    content_of,
    described,
    name_of,
    predictor,
    predictor_patch,
    previous,
    refuse_local,
    refuse_stranger,
    sha256_of,
    turn,
)
from rollout.targets.kserve.sizes import (
    Size,
    declared_minimum,
    minimum_before,
    most_replicas,
    stable_replicas,
)
from rollout.targets.target import Candidate


def canary_of(service: Object) -> Object | None:
    """The one entry of spec.canary on trial. Raises ClusterError where there are several."""
    entries = [entry for entry in service["spec"].get("canary") or [] if not is_former(service, entry)]
    if len(entries) > 1:
        raise ClusterError(
            f"InferenceService {name_of(service)}: spec.canary: {len(entries)} entries, and a rollout knows"
            " one; remove the others"
        )
    return entries[0] if entries else None


def former_of(service: Object) -> Object | None:
    """The entry that holds the pods of what was stable before the last promotion."""
    entries = service["spec"].get("canary") or []
    return next((entry for entry in entries if is_former(service, entry)), None)


def is_former(service: Object, entry: Object) -> bool:
    """Whether it was stable before: the archive before the predictor's own, deployed earlier. A candidate may
    have that archive too."""
    part = predictor(service)
    before, found = previous(part), entry["predictor"]
    if (
        before is None
        or not isinstance(found.get("model"), dict)
        or described(found).archive != before.archive
    ):
        return False
    if turn(found) == turn(part):  # both by a release without turns
        return previous(found) != described(part)
    return turn(found) < turn(part)


def workload(service: Object, part: Object) -> str:
    """KServe's name of the Deployment and the Service of a predictor."""
    middle = f"-{part['name']}" if part.get("name") else ""
    return f"{name_of(service)}{middle}-predictor"


def predictor_name(candidate: Candidate) -> str:
    """Unique for each folder in the store: an entry that is edited in place would be ready by its old
    pods."""
    return f"v{candidate.version}-{hashlib.sha256(candidate.archive.encode()).hexdigest()[:4]}"


def standard_first(service: Object, candidate: Candidate) -> Patch | None:
    """The first model of an InferenceService, whose manifest names none.

    It has each annotation that later ones have. A canary inherits those of the predictor that it lacks, so
    that the pods of the former stable would be other ones as soon as the next one is promoted.
    """
    part = predictor(service)
    if described(part) == candidate:
        return None
    refuse_local(candidate)
    content, minimum = content_of(candidate, None), declared_minimum(service)
    content["annotations"] |= {PREVIOUS: "null", REPLICAS: str(minimum), MINIMUM: str(minimum), TURN: "0"}
    content |= {"name": predictor_name(candidate), "minReplicas": minimum}
    return predictor_patch(content)


def standard_declared(service: Object) -> Patch | None:
    """minReplicas as the manifest declares it, while no canary needs another one, and without the former
    stable's pods."""
    former = former_of(service)
    if former is None:
        declared = declared_minimum(service)
    else:
        declared = minimum_before(service, {"predictor": predictor(service)})
    if canary_of(service) or (former is None and stable_replicas(service) == declared):
        return None
    return {"spec": {"predictor": {"minReplicas": declared}, "canary": []}}


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
        "annotations": annotations
        | {REPLICAS: str(max(stable_pods, minimum)), MINIMUM: str(minimum), TURN: str(turn(part) + 1)},
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


def standard_promoted(service: Object, sha256: str, stable_pods: int) -> Patch | None:
    """The canary's pods become the predictor's: with the same name, model and annotations none restarts. An
    autoscaler continues from their number.

    `stable_pods` of the former stable stay at 0 %, so that the way back is immediate, until
    `standard_declared`."""
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
    if not part.get("name") or not stable_pods:  # KServe takes no canary without a name
        return {"spec": {"predictor": content, "canary": []}}
    # KServe subtracts their number from the predictor's minimum, and takes no canary with more than that
    most = most_replicas(service)
    together = max(chosen["minReplicas"] + stable_pods, content["minReplicas"])
    content["minReplicas"] = max(stable_pods, together if most is None else min(together, most))
    return {"spec": {"predictor": content, "canary": [_at_nothing(part, stable_pods)]}}


def standard_returned(service: Object, sha256: str, serves: bool) -> Patch | None:
    """The former stable is the predictor again, with the pods that it has. One change of the routes gives it
    all requests, and KServe makes it even where pods of the other fail: the new predictor's have to be up.

    `serves`: pods of the other are up. They stay at 0 %, until `standard_withdrawn`, so that none of their
    requests is lost."""
    former = former_of(service)
    if former is None or sha256_of(former["predictor"]) != sha256:
        return None
    part, chosen = predictor(service), former["predictor"]
    model = {key: value for key, value in chosen["model"].items() if key != "name"}
    # annotations that it did not have are removed: it is the same pod template then
    annotations = dict.fromkeys(part.get("annotations") or {}) | chosen["annotations"]
    content = {"name": chosen["name"], "annotations": annotations, "model": model}
    if not serves:
        content["minReplicas"] = minimum_before(service, {"predictor": part})
        return {"spec": {"predictor": content, "canary": []}}
    # KServe subtracts the one of the other
    together, most = chosen["minReplicas"] + 1, most_replicas(service)
    content["minReplicas"] = together if most is None else min(together, most)
    return {"spec": {"predictor": content, "canary": [_at_nothing(part, 1)]}}


def standard_withdrawn(service: Object) -> Patch | None:
    """Remove all entries. Without a canary on trial nothing is removed."""
    entries = [entry for entry in service["spec"].get("canary") or [] if not is_former(service, entry)]
    if not entries:
        return None
    minimum = minimum_before(service, entries[0])
    return {"spec": {"predictor": {"minReplicas": minimum}, "canary": []}}


def _at_nothing(part: Object, pods: int) -> Object:
    """An entry of spec.canary with the pods of what has been the predictor, and no requests."""
    kept = {
        "name": part["name"],
        "minReplicas": pods,
        "annotations": dict(part.get("annotations") or {}),
        "model": {**part["model"], "name": ""},
    }
    return {"trafficPercent": 0, "predictor": kept}


def _entry(service: Object, sha256: str | None) -> Object:
    entry = canary_of(service)
    if entry is None:
        raise ClusterError(f"InferenceService {name_of(service)}: the canary is gone: somebody took it away")
    refuse_stranger(service, entry["predictor"], sha256)
    return entry

"""What an InferenceService has to say at each step of a rollout: pure functions from what stands to a patch.

Which archive a predictor loads is its storageUri, which KServe writes on Revision and pod template too: what
runs says itself what it is. Our annotations beside it give the sha256 and version of one such address,
and are believed for that address only: a tool that puts an earlier storageUri back (Argo CD, a person) leaves
them as they are. They change only together with the model. Metadata of the InferenceService
is never touched: KServe copies that to the pods too, so that a note there would start new pods, and in
Knative mode a new canary.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from rollout.targets.cluster import ClusterError, Object, Patch
from rollout.targets.target import Candidate

ARCHIVE = "churn.rollout/archive"
"""The storageUri that the other two describe."""
SHA256 = "churn.rollout/sha256"
VERSION = "churn.rollout/model-version"
PREVIOUS = "churn.rollout/previous"
"""JSON of the Candidate that was stable when this one was deployed: the last good one."""
SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
"""KServe's own: what the pods of a Revision or a Deployment load (predictor.go)."""
REPLICAS, MINIMUM = "churn.rollout/replicas", "churn.rollout/min-replicas"
"""On a canary: how many pods of stable ran when it came, and the minReplicas that stable had then."""
MODE = "serving.kserve.io/deploymentMode"
KNATIVE = ("Knative", "Serverless")
STANDARD = ("Standard", "RawDeployment")
"""With the names that KServe had before."""
SCHEMES = ("s3://", "gs://", "hf://", "https://", "http://", "pvc://", "abfs://", "hdfs://", "webhdfs://")


# --- reading


def predictor(service: Object) -> Object:
    """Raises ClusterError for a predictor that has no `model`: there is nothing that we could exchange."""
    found: Object = service["spec"]["predictor"]
    if not isinstance(found.get("model"), dict):
        raise ClusterError(
            f"InferenceService {service['metadata']['name']}: spec.predictor.model: is missing; only a"
            " predictor with a ServingRuntime and a storageUri can be rolled out"
        )
    return found


def mark(annotated: Mapping[str, Any], name: str = SHA256) -> str | None:
    """An annotation of ours, of a predictor or of anything's metadata."""
    value = (annotated.get("annotations") or {}).get(name)
    return str(value) if value else None


def described(part: Object) -> Candidate:
    """What a predictor is to load; sha256 and version are empty where it was not deployed by a rollout."""
    return _identified(part, str(part["model"].get("storageUri") or ""))


def loaded(metadata: Object) -> Candidate:
    """What the pods of a Revision or of a pod template load. A KServe that does not write the address there
    leaves our own annotations, of which only the predictor can say whether they still hold."""
    return _identified(metadata, mark(metadata, SOURCE) or mark(metadata, ARCHIVE) or "")


def _identified(annotated: Object, uri: str) -> Candidate:
    if uri and mark(annotated, ARCHIVE) == uri:
        return Candidate(uri, mark(annotated) or "", mark(annotated, VERSION) or "")
    last_good = previous(annotated)
    return last_good if last_good is not None and last_good.archive == uri else Candidate(uri, "", "")


def sha256_of(part: Object) -> str | None:
    """Of what a predictor is to load; None where it was not deployed by a rollout."""
    return described(part).sha256 or None


def previous(part: Object) -> Candidate | None:
    """What was stable when this predictor was deployed."""
    text = mark(part, PREVIOUS)
    return None if text is None else Candidate(**json.loads(text))


def refuse_other_mode(service: Object, modes: tuple[str, ...], target: str) -> None:
    """A field of the other mode would be ignored in silence. Raises ClusterError."""
    name = service["metadata"]["name"]
    found = mark(service["metadata"], MODE) or (service.get("status") or {}).get("deploymentMode")
    if found is not None and found not in modes:
        raise ClusterError(
            f"InferenceService {name}: runs in {found} mode, and rollout.target is {target}; set it to"
            f" {'standard' if found in STANDARD else 'knative'}"
        )


# --- Knative: one predictor, whose newest revision is the canary


def knative_canary(service: Object, candidate: Candidate) -> Patch | None:
    """A new revision at 0 %. Raises ClusterError where it could not stay there."""
    part = predictor(service)
    running = "canaryTrafficPercent" in part
    if sha256_of(part) == candidate.sha256:
        if running:
            return None
        raise ClusterError(f"candidate {candidate.sha256[:12]}: is what {_name(service)} serves already")
    if not component(service).get("latestRolledoutRevision"):
        # without it KServe ignores the percentage and gives all traffic to whatever is ready
        raise ClusterError(
            f"InferenceService {_name(service)}: no revision has been rolled out yet; wait until it is Ready"
        )
    _refuse_local(candidate)
    before = (previous(part) if running else None) or described(part)
    return _predictor({"canaryTrafficPercent": 0, **_content(candidate, before)})


def knative_weight(service: Object, sha256: str | None, percent: int) -> Patch | None:
    """Raises ClusterError when the canary is not the one that was judged any more."""
    part = predictor(service)
    refuse_stranger(service, part, sha256)
    if part.get("canaryTrafficPercent") == percent:
        return None
    return _predictor({"canaryTrafficPercent": percent})


def knative_promoted(service: Object, sha256: str) -> Patch | None:
    part = predictor(service)
    refuse_stranger(service, part, sha256)
    return _predictor({"canaryTrafficPercent": None}) if "canaryTrafficPercent" in part else None


def knative_withdrawn(service: Object, stable: Candidate) -> Patch | None:
    """The canary's model leaves the spec; else the next who removes the percentage would promote it.

    What stands there then is stable's own model, as a revision more, at 0 % until the next promotion.
    """
    part = predictor(service)
    if described(part) == stable and previous(part) is None:
        return None
    return _predictor({"canaryTrafficPercent": 0, **_content(stable, None)})


def component(service: Object) -> Object:
    """What KServe says of the predictor's revisions; empty before it has looked."""
    found: Object = (service.get("status") or {}).get("components", {}).get("predictor") or {}
    return found


# --- Standard: a list of canaries beside the predictor


def canary_of(service: Object) -> Object | None:
    """The one entry of spec.canary. Raises ClusterError when there are more: who would be judged?"""
    entries = service["spec"].get("canary") or []
    if len(entries) > 1:
        raise ClusterError(
            f"InferenceService {_name(service)}: spec.canary: {len(entries)} entries, and a rollout knows"
            " one; remove the others"
        )
    return entries[0] if entries else None


def workload(service: Object, part: Object) -> str:
    """KServe's name for the Deployment and the Service of a predictor."""
    middle = f"-{part['name']}" if part.get("name") else ""
    return f"{_name(service)}{middle}-predictor"


def predictor_name(candidate: Candidate) -> str:
    """New for every folder in the store: an entry that is edited in place stays ready by its old pods."""
    return f"v{candidate.version}-{hashlib.sha256(candidate.archive.encode()).hexdigest()[:4]}"


@dataclass(frozen=True)
class Size:
    """Pods that a share needs."""

    canary: int
    """Fixed: KServe gives a canary no autoscaler."""
    minimum: int
    """Of the predictor. KServe takes the canary's ready pods off it, and refuses a canary with more."""


def size(service: Object, entry: Object, percent: int, stable_pods: int) -> Size:
    """A canary is sized like what it replaces: its share of the pods that carry everything.

    That is how many ran when it came, all traffic being stable's. That an autoscaler has not yet taken pods
    away says nothing of the load; that it has added some does, for the share that stable still has. Stable
    keeps pods for all traffic, for the way back, while maxReplicas has room for them beside the canary's.
    """
    most = most_replicas(service)
    came = int(mark(entry["predictor"], REPLICAS) or stable_replicas(service))
    total = pods_for_all(came, stable_pods, 100 - int(entry["trafficPercent"]), most)
    pods = pods_for(percent, total)
    together = max(total + pods, minimum_before(service, entry))
    return Size(pods, max(pods, together if most is None else min(together, most)))


def pods_for_all(came: int, stable_pods: int, stable_share: int, most: int | None) -> int:
    """`came`: pods of stable when the canary came; `stable_pods`: those that carry `stable_share` % now."""
    total = ceil(stable_pods * 100 / stable_share) if stable_pods > came and stable_share else came
    return total if most is None else min(total, most)


def pods_for(percent: int, total: int) -> int:
    return max(1, ceil(total * percent / 100))


def most_replicas(service: Object) -> int | None:
    return int(predictor(service).get("maxReplicas") or 0) or None


def stable_replicas(service: Object) -> int:
    return int(predictor(service).get("minReplicas") or 1)


def minimum_before(service: Object, entry: Object) -> int:
    """The predictor's minReplicas before the canary came."""
    return int(mark(entry["predictor"], MINIMUM) or stable_replicas(service))


def standard_canary(service: Object, candidate: Candidate, stable_pods: int) -> Patch | None:
    """`stable_pods`: how many run now, that carry all traffic."""
    part = predictor(service)
    entry = canary_of(service)
    if sha256_of(part) == candidate.sha256 or described(part).archive == candidate.archive:
        raise ClusterError(f"candidate {candidate.sha256[:12]}: is what {_name(service)} serves already")
    if entry is not None and sha256_of(entry["predictor"]) == candidate.sha256:
        return None
    _refuse_local(candidate)
    content = _content(candidate, described(part))
    # the full CRD asks for the key `name` in a canary's model, the webhook refuses any value in it
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
    """None for `pods`: as many as there are. Raises ClusterError when the canary is not the one that was
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
    """The canary's pods become the predictor's: same name, same model, same annotations, so none restarts. An
    autoscaler takes over from the number that runs."""
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
    """However many entries there are: all of them go."""
    entries = service["spec"].get("canary") or []
    if not entries:
        return None
    minimum = minimum_before(service, entries[0])
    return {"spec": {"predictor": {"minReplicas": minimum}, "canary": []}}


def _entry(service: Object, sha256: str | None) -> Object:
    entry = canary_of(service)
    if entry is None:
        raise ClusterError(f"InferenceService {_name(service)}: the canary is gone: somebody took it away")
    refuse_stranger(service, entry["predictor"], sha256)
    return entry


# --- both


def _refuse_local(candidate: Candidate) -> None:
    if not candidate.archive.startswith(SCHEMES):
        raise ClusterError(
            f"candidate.archive: {candidate.archive}: a cluster cannot load from there; deploy to a store"
            f" with a URI ({', '.join(SCHEMES[:3])} ...: rollout.store)"
        )


def _content(candidate: Candidate, before: Candidate | None) -> Object:
    last_good = (
        {"archive": before.archive, "sha256": before.sha256, "version": before.version} if before else None
    )
    return {
        "annotations": {
            ARCHIVE: candidate.archive if candidate.sha256 else None,
            SHA256: candidate.sha256 or None,
            VERSION: candidate.version or None,
            PREVIOUS: json.dumps(last_good) if last_good else None,
        },
        "model": {"storageUri": candidate.archive},
    }


def _predictor(content: Object) -> Patch:
    return {"spec": {"predictor": content}}


def refuse_stranger(service: Object, part: Object, sha256: str | None) -> None:
    """Raises ClusterError when the predictor is not of the model that was judged any more."""
    if sha256_of(part) != sha256:
        raise ClusterError(
            f"InferenceService {_name(service)}: holds {_short(sha256_of(part))} where {_short(sha256)} was"
            " judged: somebody else has changed it"
        )


def _short(sha256: str | None) -> str:
    return "an unmarked model" if not sha256 else sha256[:12]


def _name(service: Object) -> str:
    return str(service["metadata"]["name"])

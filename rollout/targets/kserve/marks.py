"""Which archive a predictor, a Revision or a pod template loads, and the annotations by which that is known.

The archive is given by the storageUri, which KServe writes on Revision and pod template too, so that the
archive of running pods can be read from them. Our annotations beside it state sha256 and version of one such
address, and are valid for that address only: a tool that restores an earlier storageUri (Argo CD, a person)
leaves them as they are. They change only together with the model. Metadata of the InferenceService is never
changed: KServe copies it to the pods too, so that an annotation there would start new pods, and in Knative
mode a new canary.
"""

import json
from collections.abc import Mapping
from typing import Any

from rollout.targets.kserve.cluster import ClusterError, Object, Patch
from rollout.targets.target import Candidate

ARCHIVE = "churn.rollout/archive"
"""The storageUri for which SHA256 and VERSION are valid."""
SHA256 = "churn.rollout/sha256"
VERSION = "churn.rollout/model-version"
PREVIOUS = "churn.rollout/previous"
"""JSON of the Candidate that was stable when this one was deployed; null: it was the first."""
SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
"""KServe's own annotation: the address from which the pods of a Revision or a Deployment load
(predictor.go)."""
REPLICAS, MINIMUM = "churn.rollout/replicas", "churn.rollout/min-replicas"
"""On a canary: stable's pods and stable's minReplicas when it was deployed. MINIMUM on the
InferenceService: its minReplicas outside of rollouts. The manifest has this annotation and not the field,
which a rollout changes."""
TURN = "churn.rollout/turn"
"""Of a predictor in Standard mode: one more than that of the predictor beside which it was deployed. A canary
has a higher turn than the predictor, and the former stable a lower one, also when an archive serves again."""
MODE = "serving.kserve.io/deploymentMode"
KNATIVE = ("Knative", "Serverless")
STANDARD = ("Standard", "RawDeployment")
"""With the earlier names of the modes."""
SCHEMES = ("s3://", "gs://", "hf://", "https://", "http://", "pvc://", "abfs://", "hdfs://", "webhdfs://")


# reading


def predictor(service: Object) -> Object:
    """Raises ClusterError for a predictor without `model`, which has no storageUri to replace."""
    found: Object = service["spec"]["predictor"]
    if not isinstance(found.get("model"), dict):
        raise ClusterError(
            f"InferenceService {service['metadata']['name']}: spec.predictor.model: is missing; only a"
            " predictor with a ServingRuntime and a storageUri can be rolled out"
        )
    return found


def mark(annotated: Mapping[str, Any], name: str = SHA256) -> str | None:
    """One of our annotations of a predictor, or of the metadata of an object."""
    value = (annotated.get("annotations") or {}).get(name)
    return str(value) if value else None


def described(part: Object) -> Candidate:
    """The archive in the spec of a predictor; sha256 and version are empty where no rollout has deployed
    it."""
    return _identified(part, str(part["model"].get("storageUri") or ""))


def loaded(metadata: Object) -> Candidate:
    """The archive that the pods of a Revision or of a pod template load. Where KServe does not write the
    address there, our own annotation is used, whose validity only the predictor's spec shows."""
    return _identified(metadata, mark(metadata, SOURCE) or mark(metadata, ARCHIVE) or "")


def _identified(annotated: Object, uri: str) -> Candidate:
    if uri and mark(annotated, ARCHIVE) == uri:
        return Candidate(uri, mark(annotated) or "", mark(annotated, VERSION) or "")
    last_good = previous(annotated)
    return last_good if last_good is not None and last_good.archive == uri else Candidate(uri, "", "")


def sha256_of(part: Object) -> str | None:
    """Of the archive in the spec of a predictor; None where no rollout has deployed it."""
    return described(part).sha256 or None


def previous(part: Object) -> Candidate | None:
    """The archive that was stable when this predictor was deployed."""
    found = json.loads(mark(part, PREVIOUS) or "null")
    return None if found is None else Candidate(**found)


def turn(part: Object) -> int:
    """0 for a predictor that no rollout has deployed."""
    return int(mark(part, TURN) or 0)


def refuse_other_mode(service: Object, modes: tuple[str, ...], target: str) -> None:
    """Raises ClusterError for another mode, in which KServe would ignore our fields silently."""
    name = service["metadata"]["name"]
    found = mark(service["metadata"], MODE) or (service.get("status") or {}).get("deploymentMode")
    if found is not None and found not in modes:
        raise ClusterError(
            f"InferenceService {name}: runs in {found} mode, and rollout.target is {target}; set it to"
            f" {'standard' if found in STANDARD else 'knative'}"
        )


def name_of(service: Object) -> str:
    return str(service["metadata"]["name"])


# writing


def content_of(candidate: Candidate, before: Candidate | None) -> Object:
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


def predictor_patch(content: Object) -> Patch:
    return {"spec": {"predictor": content}}


# refusals


def refuse_stranger(service: Object, part: Object, sha256: str | None) -> None:
    """Raises ClusterError when the predictor does not have the model that was judged any more."""
    if sha256_of(part) != sha256:
        raise ClusterError(
            f"InferenceService {name_of(service)}: holds {_short(sha256_of(part))} where {_short(sha256)} was"
            " judged: somebody else has changed it"
        )


def _short(sha256: str | None) -> str:
    return "an unmarked model" if not sha256 else sha256[:12]


def refuse_local(candidate: Candidate) -> None:
    if not candidate.archive.startswith(SCHEMES):
        raise ClusterError(
            f"candidate.archive: {candidate.archive}: a cluster cannot load from there; deploy to a store"
            f" with a URI ({', '.join(SCHEMES[:3])} ...: rollout.store)"
        )

"""Knative mode: the patch of an InferenceService at each step. It has one predictor, whose newest revision is
the canary. Each function returns None where nothing has to change."""

from rollout.targets.kserve.cluster import ClusterError, Object, Patch
from rollout.targets.kserve.marks import (
    content_of,
    described,
    name_of,
    predictor,
    predictor_patch,
    previous,
    refuse_local,
    refuse_stranger,
    sha256_of,
)
from rollout.targets.target import Candidate


def knative_first(service: Object, candidate: Candidate) -> Patch | None:
    """The first model of an InferenceService, whose manifest names none."""
    if described(predictor(service)) == candidate:
        return None
    refuse_local(candidate)
    return predictor_patch(content_of(candidate, None))


def knative_canary(service: Object, candidate: Candidate) -> Patch | None:
    """A new revision at 0 %. Raises ClusterError where KServe would give it traffic, or cannot load it."""
    part = predictor(service)
    running = "canaryTrafficPercent" in part
    if sha256_of(part) == candidate.sha256:
        if running:
            return None
        raise ClusterError(f"candidate {candidate.sha256[:12]}: is what {name_of(service)} serves already")
    if not component(service).get("latestRolledoutRevision"):
        # without it KServe ignores the percentage and gives all traffic to whatever is ready
        raise ClusterError(
            f"InferenceService {name_of(service)}: no revision has been rolled out yet;"
            " wait until it is Ready"
        )
    refuse_local(candidate)
    before = (previous(part) if running else None) or described(part)
    return predictor_patch({"canaryTrafficPercent": 0, **content_of(candidate, before)})


def knative_weight(service: Object, sha256: str | None, percent: int) -> Patch | None:
    """Raises ClusterError when the canary does not have the model that was judged any more."""
    part = predictor(service)
    refuse_stranger(service, part, sha256)
    if part.get("canaryTrafficPercent") == percent:
        return None
    return predictor_patch({"canaryTrafficPercent": percent})


def knative_promoted(service: Object, sha256: str) -> Patch | None:
    part = predictor(service)
    refuse_stranger(service, part, sha256)
    return predictor_patch({"canaryTrafficPercent": None}) if "canaryTrafficPercent" in part else None


def knative_withdrawn(service: Object, stable: Candidate) -> Patch | None:
    """Remove the canary's model from the spec; else a later removal of the percentage would promote it.

    The spec then has stable's own model, as a further revision at 0 % until the next promotion.
    """
    part = predictor(service)
    if described(part) == stable and previous(part) is None:
        return None
    return predictor_patch({"canaryTrafficPercent": 0, **content_of(stable, None)})


def component(service: Object) -> Object:
    """The status of the predictor's revisions; empty before KServe has written it."""
    found: Object = (service.get("status") or {}).get("components", {}).get("predictor") or {}
    return found

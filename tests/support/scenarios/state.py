"""The state of an InferenceService and of what KServe has made of it, in names that are the same everywhere.

Archives are named by the scenario (`first`), since their addresses, names of predictors and hashes differ.
Only what a rollout decides by is in it: no addresses, no times, no names of pods.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rollout.targets.kserve.cluster import (
    AUTOSCALER,
    DEPLOYMENT,
    INFERENCE_SERVICE,
    KNATIVE_ROUTE,
    POD_AUTOSCALER,
    REVISION,
    Cluster,
    Kind,
    Object,
)
from rollout.targets.kserve.http_routes import Routes, routed
from rollout.targets.kserve.knative import Knative
from rollout.targets.kserve.marks import MINIMUM, PREVIOUS, REPLICAS, SHA256, SOURCE, TURN, mark
from rollout.targets.kserve.revision_pods import MIN_SCALE
from rollout.targets.kserve.standard import Standard
from rollout.targets.kserve.standard_patches import predictor_name
from rollout.targets.target import Candidate
from support.scenarios.file import State

SERVICE = "churn"
NOTHING = "none"
"""The name of a predictor without a model."""


@dataclass(frozen=True)
class Names:
    """The candidates of a scenario, by name."""

    candidates: Mapping[str, Candidate]

    def of_address(self, uri: str | None) -> str:
        known = {one.archive: name for name, one in self.candidates.items()}
        return known.get(uri, uri) if uri else NOTHING

    def of_sha256(self, sha256: str | None) -> str:
        known = {one.sha256: name for name, one in self.candidates.items()}
        return known.get(sha256, sha256) if sha256 else NOTHING

    def workload(self, model: str) -> str:
        """The name that KServe gives Deployment, Service and autoscaler of its predictor in Standard mode."""
        return f"{SERVICE}-{predictor_name(self.candidates[model])}-predictor"

    def of_workload(self, workload: str) -> str:
        known = {self.workload(model): model for model in self.candidates}
        return {**known, f"{SERVICE}-predictor": NOTHING}.get(workload, workload)


def seen(target: Standard | Knative, names: Names) -> State:
    """What the target says, without the words about pods."""
    state = target.observe()
    found: State = {"stable": names.of_sha256(state.stable), "serves": state.serves}
    if state.canary is not None:
        found |= {"canary": names.of_sha256(state.canary), "weight": state.weight, "ready": state.ready}
    if state.intended is not None and state.intended != state.weight:
        found["intended"] = state.intended
    if state.unmarked:
        found["unmarked"] = names.of_address(state.unmarked)
    return found


def state_of(cluster: Cluster, target: Standard | Knative, names: Names) -> State:
    service = cluster.get(INFERENCE_SERVICE, SERVICE)
    if target.name == "standard":
        return {
            "seen": seen(target, names),
            "traffic": _routed(cluster, names),
            "predictor": _standard(service["spec"]["predictor"], names),
            "canary": _entries(service["spec"].get("canary") or [], names),
            "pods": _deployments(cluster, names),
            "left": _left(cluster, names),
        }
    status = ((service.get("status") or {}).get("components") or {}).get("predictor") or {}
    revisions = _owned(cluster, REVISION)
    models = {one["metadata"]["name"]: _loaded(one["metadata"], names) for one in revisions}
    return {
        "seen": seen(target, names),
        "traffic": knative_split(status, models),
        "predictor": _knative(service["spec"]["predictor"], names),
        "revisions": {
            number: f"{models[one]} ({_least(cluster, one)})" for number, one in enumerate(models, 1)
        },
        "rolled_out": _numbers(status, list(models)),
        "standby": _standby(cluster, models),
    }


def _standby(cluster: Cluster, models: Mapping[str, str]) -> str | None:
    route = cluster.find(KNATIVE_ROUTE, f"{SERVICE}-standby")
    return models[route["spec"]["traffic"][0]["revisionName"]] if route else None


def route_split(route: Object, names: Names) -> dict[str, int]:
    """Of a version of an HTTPRoute: model -> percent."""
    return {names.of_workload(name): round(share) for name, share in routed(route).shares.items()}


def knative_split(status: Object, models: Mapping[str, str]) -> dict[str, int]:
    """Of a version of the predictor's status: model -> percent."""
    found: dict[str, int] = {}
    for part in status.get("traffic") or []:
        name = models.get(part["revisionName"], part["revisionName"])
        found[name] = found.get(name, 0) + int(part.get("percent") or 0)
    return found


def _routed(cluster: Cluster, names: Names) -> Any:
    routes = Routes(cluster, SERVICE).read()
    if routes is None:
        return {}
    splits = [{names.of_workload(name): round(share) for name, share in one.shares.items()} for one in routes]
    if all(one.agreed for one in routes) and splits[0] == splits[1]:
        return splits[0]
    return {"unsettled": [(one.name, one.shares, one.agreed) for one in routes]}


def _standard(part: Object, names: Names) -> State:
    found = _described(part, names)
    if part.get("minReplicas") is not None:
        found["least"] = int(part["minReplicas"])
    for name, key in (("turn", TURN), ("stable_pods", REPLICAS), ("stable_least", MINIMUM)):
        if mark(part, key) is not None:
            found[name] = int(str(mark(part, key)))
    if part.get("name") and names.of_workload(f"{SERVICE}-{part['name']}-predictor") != found["model"]:
        found["named"] = part["name"]
    return found


def _entries(entries: list[Object], names: Names) -> State:
    """Of `spec.canary`: model -> its predictor and weight."""
    found = {}
    for entry in entries:
        part = _standard(entry["predictor"], names)
        model = part.pop("model")
        found[model] = part | {"weight": entry["trafficPercent"]}
    return found


def _knative(part: Object, names: Names) -> State:
    found = _described(part, names)
    if "canaryTrafficPercent" in part:
        found["weight"] = part["canaryTrafficPercent"]
    return found


def _described(part: Object, names: Names) -> State:
    model = names.of_address(part["model"].get("storageUri"))
    found: State = {"model": model}
    marked = names.of_sha256(mark(part, SHA256))
    if marked != model:
        found["marked"] = marked
    previous = json.loads(mark(part, PREVIOUS) or "null")
    if previous is not None:
        found["previous"] = names.of_address(previous["archive"])
    return found


def _deployments(cluster: Cluster, names: Names) -> State:
    """Model -> its pods: the bounds of its autoscaler, or without one their number; and how many are up,
    where these are fewer."""
    scaled = {one["metadata"]["name"]: one["spec"] for one in _owned(cluster, AUTOSCALER)}
    found: State = {}
    for one in _owned(cluster, DEPLOYMENT):
        name, spec, status = one["metadata"]["name"], one["spec"], one.get("status") or {}
        model = names.of_workload(name)
        loads = _loaded(spec["template"]["metadata"], names)
        bounds = scaled.get(name, {"minReplicas": spec["replicas"], "maxReplicas": spec["replicas"]})
        least, most = int(bounds["minReplicas"]), int(bounds["maxReplicas"])
        words = f"{least} to {most}" if least < most else f"exactly {least}"
        up = min(int(status.get(key) or 0) for key in ("availableReplicas", "updatedReplicas"))
        words += "" if up >= least else f", {up} up"
        found[model] = words if loads == model else f"{words}, of {loads}"
    return found


def _left(cluster: Cluster, names: Names) -> list[str]:
    """Whose autoscalers have no Deployment."""
    deployments = {one["metadata"]["name"] for one in _owned(cluster, DEPLOYMENT)}
    left = {one["metadata"]["name"] for one in _owned(cluster, AUTOSCALER)} - deployments
    return sorted(names.of_workload(name) for name in left)


def _least(cluster: Cluster, revision: str) -> str:
    """The minimum of its PodAutoscaler."""
    autoscaler = cluster.find(POD_AUTOSCALER, revision)
    return mark(autoscaler["metadata"], MIN_SCALE) or "no" if autoscaler else "no"


def _numbers(status: Object, revisions: list[str]) -> State:
    """Which revision counts as rolled out, by number."""
    keys = {"now": "latestRolledoutRevision", "before": "previousRolledoutRevision"}
    return {
        name: revisions.index(status[key]) + 1 for name, key in keys.items() if status.get(key) in revisions
    }


def _loaded(metadata: Object, names: Names) -> str:
    return names.of_address(mark(metadata, SOURCE))


def _owned(cluster: Cluster, kind: Kind) -> list[Object]:
    """Of the namespace, in which the InferenceService is the only one; without the rollout controller's."""
    found = [one for one in cluster.all(kind) if one["metadata"]["name"] != "churn-rollout"]
    return sorted(found, key=lambda one: str(one["metadata"]["name"]))

"""KServe in Standard mode: the canary is an entry of `spec.canary`, a Deployment of its own, and its share
the weight of a backend in two HTTPRoutes of the Gateway API. Needs KServe 0.21.

What a rollout does to the InferenceService, and nothing else is ever touched:

    deploy      canary: [{trafficPercent: 0, predictor: {name, minReplicas: 1, annotations, model}}]
    set_weight  minReplicas of canary and predictor where the share needs more pods; when they are ready,
                trafficPercent: N
    promote     once N is 100: predictor.name, .model and .annotations of the canary, canary: [], and the
                predictor's minReplicas as it was before
    rollback    trafficPercent: 0; when traffic has moved, canary: [] and minReplicas in the same way
    restore     deploy, 100 and promote of the earlier one: KServe keeps no previous here

Traffic is read from the HTTPRoutes and who gets it from the Deployments. `status.canaryStatuses` is never
believed: its percentage is an echo of the spec, and KServe 0.20 writes it while it routes nothing.
KServe takes a canary that is not ready out of the routes by itself. The split is per request: there is no
stickiness, and no mirroring; callers of a predictor's Service pass by it.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from rollout.config import KServeConfig
from rollout.targets.cluster import (
    DEPLOYMENT,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    PODS_AT_A_TIME_S,
    Cluster,
    ClusterError,
    Object,
    connect,
)
from rollout.targets.manifests import (
    STANDARD,
    Size,
    canary_of,
    described,
    loaded,
    predictor,
    refuse_other_mode,
    sha256_of,
    size,
    standard_canary,
    standard_promoted,
    standard_weight,
    standard_withdrawn,
    workload,
)
from rollout.targets.target import Candidate, TargetState

ROUTED_WITHIN_S = 60.0
"""From when a canary is ready; a release that does not route it at all never will."""


@dataclass(frozen=True)
class Routed:
    """What one HTTPRoute does with a request."""

    name: str
    shares: dict[str, float]
    """Service -> percent; of the rule that gives the most to it, should rules differ."""
    agreed: bool
    """Whether all rules split alike, and the gateway has taken them as they are."""


class Standard:
    """Implements Target for one InferenceService, which exists and has been ready once."""

    name = "standard"
    can_mirror = False

    def __init__(self, config: KServeConfig, cluster: Cluster) -> None:
        self._service = config.name
        self._timeout_s = config.timeout_s
        self._cluster = cluster

    @classmethod
    def connect(cls, config: KServeConfig) -> Self:
        """Raises ClusterError where there is no kubeconfig and no account of a pod."""
        return cls(config, connect(config.context, config.namespace))

    def observe(self) -> TargetState:
        service = self._read()
        entry = canary_of(service)
        running = self._loaded(workload(service, predictor(service)))
        stable, unmarked = running.sha256 or None, "" if running.sha256 else running.archive
        if entry is None:
            return TargetState(0, False, None, stable, False, "there is no canary", unmarked=unmarked)
        name = workload(service, entry["predictor"])
        weight = max((routed.shares.get(name, 0) for routed in self._routes() or ()), default=0)
        complaint = self._unready(name, entry)
        # any request at all counts as 1 %: 0 means none
        percent = max(1, round(weight)) if weight else 0
        return TargetState(
            percent,
            False,
            sha256_of(entry["predictor"]),
            stable,
            complaint is None,
            complaint or "",
            entry["trafficPercent"],
            unmarked,
        )

    def serving(self) -> Candidate | None:
        service = self._read()
        found = self._loaded(workload(service, predictor(service)))
        return found if found.archive else None

    def deploy(self, candidate: Candidate) -> None:
        """Returns when the cluster has taken it; `observe` tells when its pod is ready.

        Raises ClusterError where nothing could be split later: no HTTPRoutes, an address of this machine, the
        archive that is served already.
        """
        service = self._read()
        for name in self._route_names():
            self._cluster.get(HTTP_ROUTE, name)
        stable_pods = self._pods(workload(service, predictor(service)))
        self._cluster.change(
            INFERENCE_SERVICE, self._service, lambda service: standard_canary(service, candidate, stable_pods)
        )

    def set_weight(self, percent: int, mirror: bool = False) -> None:
        """First the pods that the share needs, by what stable runs now; when they are ready, the share.

        Raises NotYet while they start: that may take minutes where the cluster has to add a node.
        `mirror` asks for what KServe does not have: the weight is set, and `observe` says mirror False.
        Raises ClusterError for a canary that is not ready, and for a KServe that does not route it.
        """
        service = self._read()
        entry = canary_of(service)
        if entry is None:
            if percent:
                raise ClusterError(f"{self._service}: there is no canary to give {percent} % to")
            return
        canary = sha256_of(entry["predictor"])
        if percent and (complaint := self._unready(workload(service, entry["predictor"]), entry)):
            raise ClusterError(f"{self._service}: the canary gets nothing: {complaint}")
        needed = size(service, entry, percent, self._pods(workload(service, predictor(service))))
        if percent > entry["trafficPercent"]:
            if needed.canary > entry["predictor"]["minReplicas"]:
                self._weigh(canary, entry["trafficPercent"], needed)
            self._wait(
                "pods of the canary", lambda: self._canary_unready(needed.canary), PODS_AT_A_TIME_S, True
            )
        self._weigh(canary, percent, needed)
        self._wait(f"{percent} % for the canary", lambda: self._unrouted(percent), ROUTED_WITHIN_S)

    def promote(self, candidate: Candidate) -> None:
        """Through 100 % if it is not there yet, so that stable's pods go only when nobody asks them."""
        if self.observe().canary == candidate.sha256:
            self.set_weight(100)
        self._cluster.change(
            INFERENCE_SERVICE, self._service, lambda service: standard_promoted(service, candidate.sha256)
        )
        self._wait(f"promotion of {candidate.version}", self._unsettled)

    def rollback(self) -> None:
        service = self._read()
        entry = canary_of(service)
        if entry is not None:
            canary = sha256_of(entry["predictor"])
            self._weigh(canary, 0, None, urgent=True)
            name = workload(service, entry["predictor"])
            # while its pods come and go the routes never rest, with nothing for it in any of them: then the
            # entry goes all the same, and the last wait judges
            with suppress(ClusterError):
                self._wait("traffic away", lambda: self._still_routed(name), ROUTED_WITHIN_S)
        self._cluster.change(INFERENCE_SERVICE, self._service, standard_withdrawn, urgent=True)
        self._wait("traffic back to stable", self._unsettled)

    def restore(self, candidate: Candidate) -> None:
        if sha256_of(predictor(self._read())) == candidate.sha256:
            self.rollback()
            return
        entry = canary_of(self._read())
        if entry is not None and sha256_of(entry["predictor"]) != candidate.sha256:
            self.rollback()
        self.deploy(candidate)
        self._wait(candidate.version, self._canary_unready)
        self.promote(candidate)

    def _read(self) -> Object:
        service = self._cluster.get(INFERENCE_SERVICE, self._service)
        refuse_other_mode(service, STANDARD, self.name)
        return service

    def _weigh(self, canary: str | None, percent: int, pods: Size | None, urgent: bool = False) -> None:
        self._cluster.change(
            INFERENCE_SERVICE,
            self._service,
            lambda service: standard_weight(service, canary, percent, pods),
            urgent,
        )

    def _pods(self, name: str) -> int:
        """How many of a Deployment run, or are about to: an autoscaler has asked for them."""
        deployment = self._cluster.find(DEPLOYMENT, name)
        if deployment is None:
            return 0
        available = int((deployment.get("status") or {}).get("availableReplicas") or 0)
        return max(available, int(deployment["spec"].get("replicas") or 0))

    def _route_names(self) -> tuple[str, str]:
        """The public host's, and the predictor's own."""
        return self._service, f"{self._service}-predictor"

    def _routes(self) -> tuple[Routed, ...] | None:
        """None while one is missing."""
        found = [self._cluster.find(HTTP_ROUTE, name) for name in self._route_names()]
        return tuple(routed(route) for route in found if route is not None) if all(found) else None

    def _loaded(self, name: str) -> Candidate:
        """Empty where there is no such Deployment."""
        deployment = self._cluster.find(DEPLOYMENT, name)
        if deployment is None:
            return Candidate("", "", "")
        return loaded(deployment["spec"]["template"]["metadata"])

    def _unready(self, name: str, entry: Object, least: int = 1) -> str | None:
        """Why fewer of its pods are up, and of its model. KServe's own "ready" is content with old ones."""
        deployment = self._cluster.find(DEPLOYMENT, name)
        if deployment is None:
            return f"KServe has not made Deployment {name} yet"
        part, status = entry["predictor"], deployment.get("status") or {}
        if loaded(deployment["spec"]["template"]["metadata"]) != described(part):
            return f"Deployment {name} is still of another model"
        if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
            return f"Deployment {name} has changed and was not looked at yet"
        counts = {key: int(status.get(key) or 0) for key in ("updatedReplicas", "availableReplicas")}
        if min(counts.values()) >= least:
            return None
        said = "; ".join(
            f"{condition.get('reason')}: {condition.get('message')}"
            for condition in status.get("conditions") or []
            if condition.get("status") == "False"
        )
        return f"Deployment {name}: {counts['availableReplicas']} of {least} pods available" + (
            f" ({said})" if said else ""
        )

    def _canary_unready(self, least: int = 1) -> str | None:
        service = self._read()
        entry = canary_of(service)
        if entry is None:
            raise ClusterError(f"{self._service}: the canary is gone: somebody took it away")
        return self._unready(workload(service, entry["predictor"]), entry, least)

    def _unrouted(self, percent: int) -> str | None:
        service = self._read()
        entry = canary_of(service)
        if entry is None:
            raise ClusterError(f"{self._service}: the canary is gone: somebody took it away")
        name = workload(service, entry["predictor"])
        routes = self._routes()
        if routes is None:
            return f"HTTPRoutes {' and '.join(self._route_names())} are not both there"
        for found in routes:
            if percent and name not in found.shares:
                ready = self._unready(name, entry)
                return ready or (
                    f"HTTPRoute {found.name} does not know {name}, which is ready: KServe 0.20 starts"
                    " canaries and routes nothing to them; use 0.21, or Knative mode"
                )
            if found.shares.get(name, 0) != percent or not found.agreed:
                return f"HTTPRoute {found.name} gives it {found.shares.get(name, 0):g} %" + (
                    "" if found.agreed else ", and the gateway has not taken it yet"
                )
        return None

    def _still_routed(self, name: str) -> str | None:
        for found in self._routes() or ():
            if found.shares.get(name, 0) or not found.agreed:
                return f"HTTPRoute {found.name} gives {name} {found.shares.get(name, 0):g} %"
        return None

    def _unsettled(self) -> str | None:
        """Whether not all traffic goes to the predictor alone."""
        name = workload(service := self._read(), predictor(service))
        for found in self._routes() or ():
            if found.shares.get(name, 0) != 100 or not found.agreed:
                return f"HTTPRoute {found.name} gives {name} {found.shares.get(name, 0):g} %"
        return None

    def _wait(
        self,
        what: str,
        complaint: Callable[[], str | None],
        at_most: float | None = None,
        under_way: bool = False,
    ) -> None:
        timeout_s = self._timeout_s if at_most is None else min(self._timeout_s, at_most)
        self._cluster.wait(complaint, timeout_s, f"{self._service}: {what}", under_way)


def routed(route: Object) -> Routed:
    """Weights as the Gateway API means them: a backend without one has 1, a rule's split is by their sum."""
    rules = [rule["backendRefs"] for rule in route["spec"].get("rules") or [] if rule.get("backendRefs")]
    splits = []
    for backends in rules:
        weights: dict[str, int] = {}
        for backend in backends:
            weights[backend["name"]] = weights.get(backend["name"], 0) + int(backend.get("weight", 1))
        total = sum(weights.values())
        splits.append({name: 100 * weight / total if total else 0.0 for name, weight in weights.items()})
    names = {name for split in splits for name in split}
    shares = {name: max(split.get(name, 0.0) for split in splits) for name in names}
    alike = all(split == splits[0] for split in splits)
    return Routed(route["metadata"]["name"], shares, alike and _taken(route))


def _taken(route: Object) -> bool:
    parents = (route.get("status") or {}).get("parents") or []
    return bool(parents) and all(
        condition.get("status") == "True"
        and condition.get("observedGeneration", 0) >= route["metadata"]["generation"]
        for parent in parents
        for condition in parent.get("conditions") or []
        if condition["type"] in ("Accepted", "ResolvedRefs")
    )

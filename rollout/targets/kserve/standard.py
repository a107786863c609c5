"""KServe in Standard mode: the canary is an entry of `spec.canary`, a Deployment of its own, and its share
the weight of a backend in two HTTPRoutes of the Gateway API. Needs KServe 0.21.

What a rollout changes in the InferenceService, and it changes nothing else:

    deploy      canary: [{trafficPercent: 0, predictor: {name, minReplicas: 1, annotations, model}}]
    set_weight  minReplicas of canary and predictor where the share needs more pods; when they are ready,
                trafficPercent: N
    promote     once N is 100: predictor.name, .model and .annotations of the canary, canary: [], and the
                predictor's minReplicas as it was before
    rollback    trafficPercent: 0; when traffic has moved, canary: [] and minReplicas in the same way
    restore     deploy, 100 and promote of the earlier one: KServe stores no previous one in this mode

Shares are read from the HTTPRoutes and archives from the Deployments. `status.canaryStatuses` is not used:
its percentage is that of the spec, and KServe 0.20 writes it while it routes nothing. KServe removes a canary
that is not ready from the routes. Each request is assigned to a variant independently, and none is mirrored.
Requests to a predictor's Service are not split.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Self

from rollout.config import KServeConfig
from rollout.targets.kserve.cluster import (
    DEPLOYMENT,
    INFERENCE_SERVICE,
    PODS_AT_A_TIME_S,
    Cluster,
    ClusterError,
    Object,
    connect,
)
from rollout.targets.kserve.http_routes import Routes
from rollout.targets.kserve.marks import (
    STANDARD,
    described,
    loaded,
    predictor,
    refuse_other_mode,
    sha256_of,
)
from rollout.targets.kserve.sizes import Size, size
from rollout.targets.kserve.standard_patches import (
    canary_of,
    standard_canary,
    standard_promoted,
    standard_weight,
    standard_withdrawn,
    workload,
)
from rollout.targets.target import Candidate, TargetState

ROUTED_WITHIN_S = 60.0
"""After a canary is ready. KServe 0.20 never routes it."""


class Standard:
    """Implements Target for one InferenceService, which exists and has been ready once."""

    name = "standard"
    can_mirror = False

    def __init__(self, config: KServeConfig, cluster: Cluster) -> None:
        self._service = config.name
        self._timeout_s = config.timeout_s
        self._cluster = cluster
        self._routes = Routes(cluster, config.name)

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
        weight = max((routed.shares.get(name, 0) for routed in self._routes.read() or ()), default=0)
        complaint = self._unready(name, entry)
        # at least 1 % where there is any share, since 0 means none
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
        """Returns when the cluster has accepted it; `observe` returns when its pod is ready.

        Raises ClusterError where no split is possible later: no HTTPRoutes, an address of this machine, or
        the archive that is stable already.
        """
        service = self._read()
        self._routes.require()
        stable_pods = self._pods(workload(service, predictor(service)))
        self._cluster.change(
            INFERENCE_SERVICE, self._service, lambda service: standard_canary(service, candidate, stable_pods)
        )

    def set_weight(self, percent: int, mirror: bool = False) -> None:
        """First start the pods that the share needs, by the pods of stable; when they are ready, set the
        share.

        Raises NotYet while they start, which may take minutes where the cluster has to add a node. KServe
        cannot mirror: with `mirror` the weight is set, and `observe` returns mirror False. Raises
        ClusterError for a canary that is not ready, and for a KServe that does not route it.
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
        """Through 100 % first, so that stable's pods are stopped only when they get no requests."""
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
            # while its pods start and stop, the routes change all the time without a share for it: the entry
            # is removed all the same, and the last wait decides
            with suppress(ClusterError):
                self._wait("traffic away", lambda: self._routes.still_routed(name), ROUTED_WITHIN_S)
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
        """The pods of a Deployment that run, or that an autoscaler has requested."""
        deployment = self._cluster.find(DEPLOYMENT, name)
        if deployment is None:
            return 0
        available = int((deployment.get("status") or {}).get("availableReplicas") or 0)
        return max(available, int(deployment["spec"].get("replicas") or 0))

    def _loaded(self, name: str) -> Candidate:
        """Empty where the Deployment does not exist."""
        deployment = self._cluster.find(DEPLOYMENT, name)
        if deployment is None:
            return Candidate("", "", "")
        return loaded(deployment["spec"]["template"]["metadata"])

    def _unready(self, name: str, entry: Object, least: int = 1) -> str | None:
        """Why fewer than `least` of its pods are available with its model; None: there are enough. KServe's
        own "ready" is true also with pods of the model before."""
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
        conditions = "; ".join(
            f"{condition.get('reason')}: {condition.get('message')}"
            for condition in status.get("conditions") or []
            if condition.get("status") == "False"
        )
        return f"Deployment {name}: {counts['availableReplicas']} of {least} pods available" + (
            f" ({conditions})" if conditions else ""
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
        routes = self._routes.read()
        if routes is None:
            return f"HTTPRoutes {' and '.join(self._routes.names)} are not both there"
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

    def _unsettled(self) -> str | None:
        service = self._read()
        return self._routes.unsettled(workload(service, predictor(service)))

    def _wait(
        self,
        what: str,
        complaint: Callable[[], str | None],
        at_most: float | None = None,
        under_way: bool = False,
    ) -> None:
        timeout_s = self._timeout_s if at_most is None else min(self._timeout_s, at_most)
        self._cluster.wait(complaint, timeout_s, f"{self._service}: {what}", under_way)

"""KServe in Standard mode: the canary is an entry of `spec.canary`, a Deployment of its own, and its share
the weight of a backend in two HTTPRoutes of the Gateway API. Needs KServe 0.21.

What a rollout changes in the InferenceService, and it changes nothing else:

    begin       predictor.name, .model.storageUri and .annotations of the first model, and minReplicas
    deploy      canary: [{trafficPercent: 0, predictor: {name, minReplicas: 1, annotations, model}}]
    set_weight  minReplicas of canary and predictor where the share needs more pods; when they are ready,
                trafficPercent: N
    promote     once N is 100: predictor.name, .model and .annotations of the canary; what was stable is the
                entry of canary, at 0 %, until the rollout's watch is over; minReplicas of both
    rollback    trafficPercent: 0; when traffic has moved, canary: [] and minReplicas in the same way
    restore     during the watch that entry and the predictor exchange their places, then rollback; later
                deploy, 100 and promote of the earlier one, since KServe stores no previous one in this mode
    tidy        canary: [] and minReplicas as declared

Shares are read from the HTTPRoutes and archives from the Deployments. `status.canaryStatuses` is not used:
its percentage is that of the spec, and KServe 0.20 writes it while it routes nothing. KServe removes a canary
that is not ready from the routes, and changes no route while the predictor's Deployment is not Available, for
which one missing pod is enough. Each request is assigned to a variant independently, and none is mirrored.
Requests to a predictor's Service are not split.
"""

from collections.abc import Callable, Sequence
from typing import Self

from rollout.config import KServeConfig
from rollout.targets.kserve.cluster import (
    AUTOSCALER,
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
from rollout.targets.kserve.pods import Pods, PodTrouble
from rollout.targets.kserve.sizes import Size, size
from rollout.targets.kserve.standard_patches import (
    canary_of,
    former_of,
    standard_canary,
    standard_declared,
    standard_first,
    standard_promoted,
    standard_returned,
    standard_weight,
    standard_withdrawn,
    workload,
)
from rollout.targets.target import Candidate, TargetState

ROUTED_WITHIN_S = 60.0
"""After a canary is ready. KServe 0.20 never routes it."""


def made_for(autoscalers: Sequence[Object], service: str) -> list[str]:
    """Names of the autoscalers that KServe has made for `service`, each for the Deployment of its name."""
    return [
        autoscaler["metadata"]["name"]
        for autoscaler in autoscalers
        for owner in autoscaler["metadata"].get("ownerReferences") or []
        if (owner["kind"], owner["name"]) == (INFERENCE_SERVICE.name, service)
        and autoscaler["spec"]["scaleTargetRef"]["name"] == autoscaler["metadata"]["name"]
    ]


class Standard:
    """Implements Target for one InferenceService, which exists."""

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
            serves = self._pods(workload(service, predictor(service)), True) > 0
            return TargetState(
                0, False, None, stable, False, "there is no canary", serves=serves, unmarked=unmarked
            )
        name = workload(service, entry["predictor"])
        weight = self._routes.share(name)
        complaint = self._unready(name, entry)
        # one that is ready may wait for the further pods of its next share, which may need a node
        lacking = complaint or self._unready(name, entry, int(entry["predictor"].get("minReplicas") or 1))
        # and as long as KServe changes no share, for pods of stable
        pods = self._trouble(name) if lacking else self._missing_of_stable(service)
        if complaint is not None and pods is not None:
            complaint = f"{complaint}; {pods.words}"
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
            needs_node=pods is not None and pods.needs_node,
            starting_since=None if pods is None else pods.starting_since,
            unmarked=unmarked,
        )

    def serving(self) -> Candidate | None:
        service = self._read()
        found = self._loaded(workload(service, predictor(service)))
        return found if found.archive else None

    def begin(self, candidate: Candidate) -> None:
        """Raises ClusterError where something serves already, and while its pods are not ready the last of
        their words, after `timeout_s`: it may be called again."""
        service = self._read()
        name = workload(service, predictor(service))
        if described(predictor(service)).archive not in ("", candidate.archive) and self._pods(name, True):
            raise ClusterError(f"{self._service}: serves {described(predictor(service)).archive} already")
        self._cluster.change(
            INFERENCE_SERVICE, self._service, lambda service: standard_first(service, candidate)
        )
        self._wait(f"first model {candidate.version}", self._first_unready, under_way=True)

    def tidy(self) -> None:
        """Besides, KServe leaves the autoscaler of each version behind, which warns every 15 s for ever."""
        self._read()
        self._cluster.change(INFERENCE_SERVICE, self._service, standard_declared)
        autoscalers = self._cluster.all(AUTOSCALER)
        for name in made_for(autoscalers, self._service):
            if self._cluster.find(DEPLOYMENT, name) is None:
                self._cluster.delete(AUTOSCALER, name)

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

        Raises NotYet while they start, or stable's do, for which KServe waits before it changes a share. That
        may take minutes where the cluster has to add a node. KServe cannot mirror: with `mirror` the weight
        is set, and `observe` returns mirror False. Raises ClusterError for a canary that is not ready, and
        for a KServe that does not route it.
        """
        service = self._read()
        entry = canary_of(service)
        if entry is None:
            if percent:
                raise ClusterError(f"{self._service}: there is no canary to give {percent} % to")
            return
        canary = sha256_of(entry["predictor"])
        if percent:  # for a moment it is not ready whenever the number of its pods has been changed
            self._wait("the canary gets nothing", self._canary_unready, PODS_AT_A_TIME_S)
        needed = self._start_pods(service, entry, percent)
        if percent > entry["trafficPercent"]:
            self._wait("pods of stable", self._frozen, PODS_AT_A_TIME_S, True)
        self._weigh(canary, percent, needed)
        self._wait(f"{percent} % for the canary", lambda: self._unrouted(percent), ROUTED_WITHIN_S)

    def _start_pods(self, service: Object, entry: Object, percent: int) -> Size:
        """Raises NotYet while they start."""
        needed = size(service, entry, percent, self._pods(workload(service, predictor(service))))
        if percent > entry["trafficPercent"]:
            if needed.canary > entry["predictor"]["minReplicas"]:
                self._weigh(sha256_of(entry["predictor"]), entry["trafficPercent"], needed)
            self._wait(
                "pods of the canary", lambda: self._canary_unready(needed.canary), PODS_AT_A_TIME_S, True
            )
        return needed

    def promote(self, candidate: Candidate) -> None:
        """Through 100 % first, so that stable's pods are stopped only when they get no requests."""
        if self.observe().canary == candidate.sha256:
            self.set_weight(100)
        self._make_stable(candidate)

    def _make_stable(self, candidate: Candidate) -> None:
        service = self._read()
        stable_pods = self._pods(workload(service, predictor(service)), True)
        self._cluster.change(
            INFERENCE_SERVICE,
            self._service,
            lambda service: standard_promoted(service, candidate.sha256, stable_pods),
        )
        self._wait(f"promotion of {candidate.version}", self._unsettled)

    def rollback(self) -> None:
        """Raises ClusterError while the canary's share is in the routes: KServe changes none as long as pods
        of stable are missing, and without the canary's pods that share would be lost."""
        service = self._read()
        entry = canary_of(service)
        if entry is not None:
            canary = sha256_of(entry["predictor"])
            self._weigh(canary, 0, None, urgent=True)
            name = workload(service, entry["predictor"])
            # while its pods start and stop, the routes change all the time without a share for it: the entry
            # is removed all the same, and the last wait decides
            try:
                self._wait("traffic away", lambda: self._routes.still_routed(name), ROUTED_WITHIN_S)
            except ClusterError:
                if self._routes.share(name):
                    raise
        self._cluster.change(INFERENCE_SERVICE, self._service, standard_withdrawn, urgent=True)
        self._wait("traffic back to stable", self._unsettled)

    def restore(self, candidate: Candidate) -> None:
        if sha256_of(predictor(self._read())) == candidate.sha256:
            self.rollback()
            return
        if self._returned(candidate):
            return
        entry = canary_of(self._read())
        if entry is not None and sha256_of(entry["predictor"]) != candidate.sha256:
            self.rollback()
        self.deploy(candidate)
        self._wait(candidate.version, self._canary_unready)
        service = self._read()
        entry = canary_of(service)
        if entry is not None and self._frozen():
            self._start_pods(service, entry, 100)
            self._make_stable(candidate)
        else:
            self.promote(candidate)

    def _returned(self, candidate: Candidate) -> bool:
        """Back to the pods of the former stable, while they are there. No pod is started."""
        service = self._read()
        former = former_of(service)
        if former is None or sha256_of(former["predictor"]) != candidate.sha256:
            return False
        name = workload(service, former["predictor"])
        if self._unready(name, former):
            return False
        serves = self._pods(workload(service, predictor(service)), True) > 0
        self._cluster.change(
            INFERENCE_SERVICE,
            self._service,
            lambda service: standard_returned(service, candidate.sha256, serves),
            urgent=True,
        )
        self._wait(f"return of {candidate.version}", self._unsettled)
        self.rollback()
        return True

    def _frozen(self) -> str | None:
        """Why KServe changes no route."""
        service = self._read()
        name = workload(service, predictor(service))
        if not self._lacks_pods(name):
            return None
        return self._with_words(f"KServe changes no share while pods of {name} are missing", name)

    def _missing_of_stable(self, service: Object) -> PodTrouble | None:
        name = workload(service, predictor(service))
        return self._trouble(name) if self._lacks_pods(name) else None

    def _lacks_pods(self, name: str) -> bool:
        """Whether more pods of the Deployment are missing than it allows."""
        deployment = self._cluster.find(DEPLOYMENT, name)
        conditions = ((deployment or {}).get("status") or {}).get("conditions") or []
        return any((one.get("type"), one.get("status")) == ("Available", "False") for one in conditions)

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

    def _first_unready(self) -> str | None:
        service = self._read()
        part = predictor(service)
        name = workload(service, part)
        complaint = self._unready(name, {"predictor": part})
        if complaint is not None:
            return self._with_words(complaint, name)
        return None if self._routes.read() else f"{name} is ready, and has no HTTPRoutes yet"

    def _pods(self, name: str, only_available: bool = False) -> int:
        """The pods of a Deployment that run, or that an autoscaler has requested."""
        deployment = self._cluster.find(DEPLOYMENT, name)
        if deployment is None:
            return 0
        available = int((deployment.get("status") or {}).get("availableReplicas") or 0)
        return available if only_available else max(available, int(deployment["spec"].get("replicas") or 0))

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

    def _with_words(self, complaint: str, name: str) -> str:
        """With the reason that its pods have."""
        pods = self._trouble(name)
        return complaint if pods is None else f"{complaint}; {pods.words}"

    def _trouble(self, name: str) -> PodTrouble | None:
        deployment = self._cluster.find(DEPLOYMENT, name)
        if deployment is None:
            return None
        labels = (deployment["spec"].get("selector") or {}).get("matchLabels") or {}
        return Pods(self._cluster).trouble(name, labels) if labels else None

    def _canary_unready(self, least: int = 1) -> str | None:
        service = self._read()
        entry = canary_of(service)
        if entry is None:
            raise ClusterError(f"{self._service}: the canary is gone: somebody took it away")
        name = workload(service, entry["predictor"])
        complaint = self._unready(name, entry, least)
        return None if complaint is None else self._with_words(complaint, name)

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

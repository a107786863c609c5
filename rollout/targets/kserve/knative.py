"""KServe in Knative mode: the canary is the newest revision, `canaryTrafficPercent` its share.

What a rollout changes in `spec.predictor`, and it changes nothing else:

    begin       storageUri and annotations of the first model
    deploy      storageUri and annotations of the candidate, canaryTrafficPercent: 0
    set_weight  canaryTrafficPercent: N, once the canary has the pods that the share needs
    promote     canaryTrafficPercent: null, once N is 100
    rollback    canaryTrafficPercent: 0; when traffic has moved, storageUri and annotations of what is stable
    restore     after a promotion canaryTrafficPercent: 0, which brings the revision before it back (KServe
                stores one), once its pods are up; an older one is deployed, set to 100 and promoted

Traffic is read from the Revisions that get it (revisions.py). A revision that never becomes ready gets none,
while `latestRevision` in the status is healthy, because that is the old one. Stable has pods for all traffic
until the watch is over, and the canary for its share (revision_pods.py, standby.py). Each request is assigned
to a variant independently, and none is mirrored.
"""

from collections.abc import Callable
from typing import Self

from rollout.config import KServeConfig
from rollout.targets.kserve.cluster import (
    INFERENCE_SERVICE,
    PODS_AT_A_TIME_S,
    Cluster,
    ClusterError,
    Object,
    connect,
)
from rollout.targets.kserve.knative_patches import (
    component,
    knative_canary,
    knative_first,
    knative_promoted,
    knative_weight,
    knative_withdrawn,
)
from rollout.targets.kserve.marks import (
    KNATIVE,
    described,
    predictor,
    previous,
    refuse_other_mode,
    refuse_stranger,
    sha256_of,
)
from rollout.targets.kserve.pods import Pods, PodTrouble
from rollout.targets.kserve.probe import unanswered
from rollout.targets.kserve.revision_pods import RevisionPods
from rollout.targets.kserve.revisions import Revisions, shown
from rollout.targets.kserve.sizes import least_pods, most_replicas, pods_for, pods_for_all, stable_replicas
from rollout.targets.kserve.standby import Standby
from rollout.targets.target import Candidate, TargetState

REVISION_LABEL = "serving.knative.dev/revision"


class Knative:
    """Implements Target for one InferenceService, which exists."""

    name = "knative"
    can_mirror = False

    def __init__(self, config: KServeConfig, cluster: Cluster) -> None:
        self._service = config.name
        self._gateway_url = config.gateway_url
        self._timeout_s = config.timeout_s
        self._cluster = cluster
        self._pods, self._revisions = RevisionPods(cluster), Revisions(cluster)
        self._standby = Standby(cluster, config.name)
        self._answering: set[str] = set()
        """Revisions that have answered a prediction request; they get no further one."""

    @classmethod
    def connect(cls, config: KServeConfig) -> Self:
        """Raises ClusterError where there is no kubeconfig and no account of a pod."""
        return cls(config, connect(config.context, config.namespace))

    def observe(self) -> TargetState:
        return self._seen(self._read())

    def serving(self) -> Candidate | None:
        service = self._read()
        part, running = predictor(service), self._revisions.running(component(service))
        if "canaryTrafficPercent" in part and len(running) > 1:
            running.pop(described(part), None)
        return max(running, key=lambda found: running[found]) if running else None

    def begin(self, candidate: Candidate) -> None:
        """Raises ClusterError where something serves already, and NotYet while its pods are not ready."""
        service = self._read()
        if self._serves_another(service, candidate):
            raise ClusterError(f"{self._service}: serves {described(predictor(service)).archive} already")
        self._cluster.change(
            INFERENCE_SERVICE, self._service, lambda service: knative_first(service, candidate)
        )
        self._wait(f"first model {candidate.version}", self._first_unready, under_way=True)

    def tidy(self) -> None:
        """The pods of the former stable model end with the rollout that replaced it."""
        if self._standby.exists():
            self._release_pods()

    def deploy(self, candidate: Candidate) -> None:
        """Returns when KServe has made the revision, which may be long before it is ready.

        Raises ClusterError when KServe has changed what is stable. It does when it reads the new percentage
        before the new revision: it then rolls the old revision back to the one before (PropagateStatus in its
        inference_service_status.go). `rollback` corrects that.
        """
        self._read()
        self._cluster.change(
            INFERENCE_SERVICE, self._service, lambda service: knative_canary(service, candidate)
        )
        self._wait(f"revision of {candidate.version}", lambda service: self._revisions.unmade(service))
        service = self._read()
        last_good, stable = previous(predictor(service)), self._seen(service).stable
        if last_good is not None and stable != (last_good.sha256 or None):
            raise ClusterError(
                f"{self._service}: KServe went back to {(stable or 'an unmarked model')[:12]} when it took"
                f" the canary, from {(last_good.sha256 or 'an unmarked model')[:12]}; roll back"
            )

    def set_weight(self, percent: int, mirror: bool = False) -> None:
        """Knative cannot mirror: with `mirror` the weight is set, and `observe` returns mirror False.

        Raises ClusterError for a canary that is not ready, which would get its share at an unknown later
        time.
        """
        state = self.observe()
        if state.canary is None:
            if percent:
                raise ClusterError(f"{self._service}: there is no canary to give {percent} % to")
            return
        if percent and not state.ready:
            raise ClusterError(f"{self._service}: the canary gets nothing: {state.detail}")
        canary = state.canary
        if percent > state.weight:
            self._start_pods(canary, percent, state.weight)
        self._cluster.change(
            INFERENCE_SERVICE, self._service, lambda service: knative_weight(service, canary, percent)
        )
        self._wait_for_weight(percent)

    def _start_pods(self, sha256: str, percent: int, weight: int) -> None:
        """Start the pods that the canary's share needs, by the pods of stable. Raises NotYet while they
        start."""
        service = self._read()
        refuse_stranger(service, predictor(service), sha256)
        status = component(service)
        canary, stable = status["latestCreatedRevision"], status["latestRolledoutRevision"]
        running = self._pods.running(stable)
        at_start = self._pods.stable_at_start(canary) or max(running, stable_replicas(service))
        total = pods_for_all(at_start, running, 100 - weight, most_replicas(service))
        # each revision has an autoscaler of its own, so that there is room for both
        needed = pods_for(percent, total, least_pods(stable_replicas(service), None))
        self._pods.hold(canary, needed, at_start)
        self._pods.hold(stable, total)  # for the way back
        if percent == 100:
            # a way back while the candidate is watched goes to the pods that there are
            self._standby.keep(stable, 1, service)
        timeout_s = min(self._timeout_s, PODS_AT_A_TIME_S)
        what = f"{self._service}: pods of the canary"
        self._cluster.wait(lambda: self._few(canary, needed), timeout_s, what, under_way=True)

    def _few(self, revision: str, least: int) -> str | None:
        """Why fewer than `least` pods are up, with the reason that they have."""
        complaint = self._pods.few(revision, least)
        pods = None if complaint is None else self._trouble(revision)
        return f"{complaint}; {pods.words}" if pods else complaint

    def _release_pods(self, former: bool = True) -> None:
        """`former`: also those of the revision that was stable before."""
        status = component(self._read())
        names = ["latestCreatedRevision", "latestRolledoutRevision"]
        names += ["previousRolledoutRevision"] if former else []
        for revision in dict.fromkeys(status.get(name) for name in names):
            if revision:
                self._pods.release(revision)
        if former:
            self._standby.end()

    def promote(self, candidate: Candidate) -> None:
        """Through 100 % if it is not there yet."""
        if self.observe().canary == candidate.sha256:
            self.set_weight(100)
        self._cluster.change(
            INFERENCE_SERVICE, self._service, lambda service: knative_promoted(service, candidate.sha256)
        )
        self._wait(f"promotion of {candidate.version}", lambda service: self._unpromoted(service, candidate))
        self._release_pods(former=False)

    def rollback(self) -> None:
        self._roll_back()
        self._release_pods()

    def _roll_back(self) -> None:
        service = self._read()
        part = predictor(service)
        last_good = previous(part)
        if "canaryTrafficPercent" not in part or last_good is None:
            return
        if described(part).archive != last_good.archive:  # else stable's model has been restored already
            canary = sha256_of(part)
            self._cluster.change(
                INFERENCE_SERVICE,
                self._service,
                lambda service: knative_weight(service, canary, 0),
                urgent=True,
            )
            self._wait_for_weight(0)
        self._withdraw(last_good)
        if last_good.sha256 and self.observe().stable != last_good.sha256:
            self._cluster.wait(self._unready, self._timeout_s, f"{self._service}: {last_good.version}")
            self.promote(last_good)

    def restore(self, candidate: Candidate) -> None:
        """Raises NotYet while pods of the revision before start."""
        service = self._read()
        state, part = self._seen(service), predictor(service)
        if state.stable == candidate.sha256 and state.weight == 0:
            self.rollback()
            return
        before = component(service).get("previousRolledoutRevision")
        if (
            "canaryTrafficPercent" not in part
            and before
            and self._revisions.sha256(before) == candidate.sha256
        ):
            self._start_former(service, before)
            promoted = sha256_of(part)
            self._cluster.change(
                INFERENCE_SERVICE, self._service, lambda service: knative_weight(service, promoted, 0)
            )
            self._wait(f"return of {candidate.version}", lambda service: self._not_back(service, candidate))
            self._withdraw(candidate)
            self._release_pods()
            return
        if sha256_of(part) != candidate.sha256:
            self.rollback()
            if self.observe().stable == candidate.sha256:
                return
        # else an earlier attempt began this; where the percentage is removed already, `promote` only has to
        # wait
        if sha256_of(part) != candidate.sha256 or "canaryTrafficPercent" in part:
            self.deploy(candidate)
            self._cluster.wait(self._unready, self._timeout_s, f"{self._service}: {candidate.version}")
        self.promote(candidate)

    def _start_former(self, service: Object, before: str) -> None:
        """After the watch the former stable revision has no pods: start as many as the present one has.
        Raises NotYet while they start."""
        needed = self._standby.needed(before)
        if needed is None:
            needed = max(1, self._pods.up(component(service)["latestRolledoutRevision"]))
            self._pods.hold(before, max(needed, stable_replicas(service)))
            self._standby.keep(before, needed, service)
        timeout_s = min(self._timeout_s, PODS_AT_A_TIME_S)
        what = f"{self._service}: pods of the former model"
        self._cluster.wait(lambda: self._few(before, needed), timeout_s, what, under_way=True)

    def _serves_another(self, service: Object, candidate: Candidate) -> bool:
        status = component(service)
        running = self._revisions.running(status)
        return bool(status.get("latestReadyRevision")) and any(
            found.archive not in ("", candidate.archive) for found in running
        )

    def _first_unready(self, service: Object) -> str | None:
        if complaint := self._revisions.unmade(service):
            return complaint
        status = component(service)
        created = status["latestCreatedRevision"]
        complaint = self._revisions.unready(created, status)
        if complaint is None:
            ready = status.get("latestRolledoutRevision") == created
            return None if ready else f"revision {created} gets no requests yet"
        pods = self._trouble(created)
        return f"{complaint}; {pods.words}" if pods else complaint

    def _trouble(self, revision: str) -> PodTrouble | None:
        return Pods(self._cluster).trouble(revision, {REVISION_LABEL: revision})

    def _read(self) -> Object:
        service = self._cluster.get(INFERENCE_SERVICE, self._service)
        refuse_other_mode(service, KNATIVE, self.name)
        return service

    def _seen(self, service: Object) -> TargetState:
        part, status = predictor(service), component(service)
        shares = self._revisions.shares(status)
        wanted = sha256_of(part)
        intended = part.get("canaryTrafficPercent")
        weight = shares.get(wanted, 0)
        others = {sha256: share for sha256, share in shares.items() if sha256 != wanted}
        stable = max(others, key=lambda sha256: others[sha256]) if others else None
        if not others:
            last_good = previous(part)
            stable = (last_good.sha256 or None) if last_good and intended is not None else wanted
        if intended is None or stable == wanted:
            # another revision with traffic is being removed, and is no canary to be judged
            serving = max(shares, key=lambda sha256: shares[sha256]) if shares else None
            unmarked = (
                "" if serving else next((found.archive for found in self._revisions.running(status)), "")
            )
            serves = bool(status.get("latestReadyRevision"))
            return TargetState(
                0,
                False,
                None,
                serving,
                False,
                "there is no canary",
                intended,
                serves=serves,
                unmarked=unmarked,
            )
        unmade = self._revisions.unmade(service)
        created = unmade is None
        complaint = (
            unmade
            or self._revisions.unready(status["latestCreatedRevision"], status)
            or self._unanswered(status)
        )
        revision = str(status.get("latestCreatedRevision"))
        # one that is ready may wait for the further pods of its next share, which may need a node
        lacking = created and (complaint or self._pods.are_lacking(revision))
        pods = self._trouble(revision) if lacking else None
        return TargetState(
            weight,
            False,
            wanted,
            stable,
            complaint is None,
            "; ".join(filter(None, (complaint, pods.words if pods else None))),
            intended,
            needs_node=pods is not None and pods.needs_node,
            starting_since=None if pods is None else pods.starting_since,
        )

    def _unanswered(self, status: Object) -> str | None:
        if self._gateway_url is None:
            return None
        url = next((part.get("url") for part in status["traffic"] if part.get("tag") == "latest"), None)
        if url is None:
            return "it has no host of its own: annotate serving.kserve.io/enable-tag-routing"
        revision = status["latestCreatedRevision"]
        if revision in self._answering:
            return None
        complaint = unanswered(self._gateway_url, url, self._service)
        if complaint is None:
            self._answering.add(revision)
        return complaint

    def _unready(self) -> str | None:
        state = self.observe()
        return None if state.ready else state.detail

    def _unpromoted(self, service: Object, candidate: Candidate) -> str | None:
        status = component(service)
        shares = self._revisions.shares(status)
        if shares != {candidate.sha256: 100}:
            return f"traffic goes to {shown(shares)}"
        if status.get("latestRolledoutRevision") != status.get("latestCreatedRevision"):
            return f"the last revision rolled out is {status.get('latestRolledoutRevision')}"
        return None

    def _not_back(self, service: Object, candidate: Candidate) -> str | None:
        shares = self._revisions.shares(component(service))
        return None if shares == {candidate.sha256: 100} else f"traffic goes to {shown(shares)}"

    def _withdraw(self, stable: Candidate) -> None:
        self._cluster.change(
            INFERENCE_SERVICE, self._service, lambda service: knative_withdrawn(service, stable)
        )

    def _wait_for_weight(self, percent: int) -> None:
        def complaint(service: Object) -> str | None:
            weight = self._revisions.shares(component(service)).get(sha256_of(predictor(service)), 0)
            return None if weight == percent else f"the canary gets {weight} %"

        self._wait(f"{percent} % for the canary", complaint)

    def _wait(self, what: str, complaint: Callable[[Object], str | None], under_way: bool = False) -> None:
        self._cluster.wait(
            lambda: complaint(self._read()), self._timeout_s, f"{self._service}: {what}", under_way
        )

"""KServe in Knative mode: the canary is the newest revision, `canaryTrafficPercent` its share.

What a rollout does to `spec.predictor`, and nothing else is ever touched:

    deploy      storageUri and annotations of the candidate, canaryTrafficPercent: 0
    set_weight  canaryTrafficPercent: N, once the canary has the pods that the share needs
    promote     canaryTrafficPercent: null, once N is 100
    rollback    canaryTrafficPercent: 0; when traffic has moved, storageUri and annotations of what is stable
    restore     after a promotion canaryTrafficPercent: 0, which brings the revision before it back (KServe
                remembers one); an older one goes through deploy, 100 and promote

Traffic is read from the Revisions that get it, by what they say they are. A revision that never becomes
ready gets none, while `latestRevision` in the status looks healthy: it is the old one. At 100 % Knative lets
stable's pods go; falling back waits for one to start, and so do the requests of that moment. Until then
stable keeps pods for all traffic, and the canary for its share (knative_pods.py).
The split is per request: there is no stickiness, and no mirroring.
"""

from collections.abc import Callable
from typing import Self

from rollout.config import KServeConfig
from rollout.targets.cluster import (
    INFERENCE_SERVICE,
    PODS_AT_A_TIME_S,
    REVISION,
    Cluster,
    ClusterError,
    Object,
    connect,
)
from rollout.targets.knative_pods import RevisionPods
from rollout.targets.manifests import (
    KNATIVE,
    component,
    described,
    knative_canary,
    knative_promoted,
    knative_weight,
    knative_withdrawn,
    loaded,
    most_replicas,
    pods_for,
    pods_for_all,
    predictor,
    previous,
    refuse_other_mode,
    refuse_stranger,
    sha256_of,
    stable_replicas,
)
from rollout.targets.question import unanswered
from rollout.targets.target import Candidate, TargetState


class Knative:
    """Implements Target for one InferenceService, which exists and has been ready once."""

    name = "knative"
    can_mirror = False

    def __init__(self, config: KServeConfig, cluster: Cluster) -> None:
        self._service = config.name
        self._gateway_url = config.gateway_url
        self._timeout_s = config.timeout_s
        self._cluster = cluster
        self._pods = RevisionPods(cluster)
        self._answering: set[str] = set()
        """Revisions that have answered: each is asked until it does, and its traffic speaks for it then."""

    @classmethod
    def connect(cls, config: KServeConfig) -> Self:
        """Raises ClusterError where there is no kubeconfig and no account of a pod."""
        return cls(config, connect(config.context, config.namespace))

    def observe(self) -> TargetState:
        return self._seen(self._read())

    def serving(self) -> Candidate | None:
        service = self._read()
        part, running = predictor(service), self._running(component(service))
        if "canaryTrafficPercent" in part and len(running) > 1:
            running.pop(described(part), None)
        return max(running, key=lambda found: running[found]) if running else None

    def deploy(self, candidate: Candidate) -> None:
        """Returns when KServe has made the revision, which may be long before it is ready, if it ever is.

        Raises ClusterError when KServe has changed what is stable by that. It does when it sees the new
        percentage before it sees the new revision: it takes that for a roll-back of the old one, and goes
        back to the one before (PropagateStatus in its inference_service_status.go). `rollback` mends it.
        """
        self._read()
        self._cluster.change(
            INFERENCE_SERVICE, self._service, lambda service: knative_canary(service, candidate)
        )
        self._wait(f"revision of {candidate.version}", lambda service: self._unmade(service))
        service = self._read()
        last_good, stable = previous(predictor(service)), self._seen(service).stable
        if last_good is not None and stable != (last_good.sha256 or None):
            raise ClusterError(
                f"{self._service}: KServe went back to {(stable or 'an unmarked model')[:12]} when it took"
                f" the canary, from {(last_good.sha256 or 'an unmarked model')[:12]}; roll back"
            )

    def set_weight(self, percent: int, mirror: bool = False) -> None:
        """`mirror` asks for what Knative does not have: the weight is set, and `observe` says mirror False.

        Raises ClusterError for a canary that is not ready: its share would come over it whenever it is.
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
        """As many of the canary as the share needs, by what stable runs. Raises NotYet while they start."""
        service = self._read()
        refuse_stranger(service, predictor(service), sha256)
        status = component(service)
        canary, stable = status["latestCreatedRevision"], status["latestRolledoutRevision"]
        running = self._pods.running(stable)
        came = self._pods.when_it_came(canary) or max(running, stable_replicas(service))
        total = pods_for_all(came, running, 100 - weight, most_replicas(service))
        needed = pods_for(percent, total)
        self._pods.hold(canary, needed, came)
        self._pods.hold(stable, total)  # for the way back
        timeout_s = min(self._timeout_s, PODS_AT_A_TIME_S)
        what = f"{self._service}: pods of the canary"
        self._cluster.wait(lambda: self._pods.few(canary, needed), timeout_s, what, under_way=True)

    def _let_pods_go(self) -> None:
        status = component(self._read())
        names = ("latestCreatedRevision", "latestRolledoutRevision", "previousRolledoutRevision")
        for revision in dict.fromkeys(status.get(name) for name in names):
            if revision:
                self._pods.let_go(revision)

    def promote(self, candidate: Candidate) -> None:
        """Through 100 % if it is not there yet."""
        if self.observe().canary == candidate.sha256:
            self.set_weight(100)
        self._cluster.change(
            INFERENCE_SERVICE, self._service, lambda service: knative_promoted(service, candidate.sha256)
        )
        self._wait(f"promotion of {candidate.version}", lambda service: self._unpromoted(service, candidate))
        self._let_pods_go()

    def rollback(self) -> None:
        self._roll_back()
        self._let_pods_go()

    def _roll_back(self) -> None:
        service = self._read()
        part = predictor(service)
        last_good = previous(part)
        if "canaryTrafficPercent" not in part or last_good is None:
            return
        if described(part).archive != last_good.archive:  # else somebody has put stable's model back already
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
        service = self._read()
        state, part = self._seen(service), predictor(service)
        if state.stable == candidate.sha256 and state.weight == 0:
            self.rollback()
            return
        before = component(service).get("previousRolledoutRevision")
        if "canaryTrafficPercent" not in part and before and self._sha256(before) == candidate.sha256:
            promoted = sha256_of(part)
            self._cluster.change(
                INFERENCE_SERVICE, self._service, lambda service: knative_weight(service, promoted, 0)
            )
            self._wait(f"return of {candidate.version}", lambda service: self._not_back(service, candidate))
            self._withdraw(candidate)
            self._let_pods_go()
            return
        if sha256_of(part) != candidate.sha256:
            self.rollback()
            if self.observe().stable == candidate.sha256:
                return
        # else this was begun before; where the percentage is gone already, `promote` only has to wait
        if sha256_of(part) != candidate.sha256 or "canaryTrafficPercent" in part:
            self.deploy(candidate)
            self._cluster.wait(self._unready, self._timeout_s, f"{self._service}: {candidate.version}")
        self.promote(candidate)

    def _read(self) -> Object:
        service = self._cluster.get(INFERENCE_SERVICE, self._service)
        refuse_other_mode(service, KNATIVE, self.name)
        return service

    def _seen(self, service: Object) -> TargetState:
        part, status = predictor(service), component(service)
        shares = self._shares(status)
        wanted = sha256_of(part)
        asked = part.get("canaryTrafficPercent")
        weight = shares.get(wanted, 0)
        others = {sha256: share for sha256, share in shares.items() if sha256 != wanted}
        stable = max(others, key=lambda sha256: others[sha256]) if others else None
        if not others:
            last_good = previous(part)
            stable = (last_good.sha256 or None) if last_good and asked is not None else wanted
        if asked is None or stable == wanted:
            # what else gets traffic is on its way out; it is no canary that a rule could judge
            serving = max(shares, key=lambda sha256: shares[sha256]) if shares else None
            unmarked = "" if serving else next((found.archive for found in self._running(status)), "")
            return TargetState(0, False, None, serving, False, "there is no canary", asked, unmarked)
        complaint = (
            self._unmade(service)
            or self._unready_revision(status["latestCreatedRevision"], status)
            or self._unanswered(status)
        )
        return TargetState(weight, False, wanted, stable, complaint is None, complaint or "", asked)

    def _running(self, status: Object) -> dict[Candidate, int]:
        """What is loaded -> percent of the requests that it gets."""
        shares: dict[Candidate, int] = {}
        for part in status.get("traffic") or []:
            if part.get("percent"):
                found = self._loaded(part["revisionName"])
                shares[found] = shares.get(found, 0) + int(part["percent"])
        return shares

    def _shares(self, status: Object) -> dict[str | None, int]:
        """The same by sha256; None: what no rollout has deployed."""
        shares: dict[str | None, int] = {}
        for found, percent in self._running(status).items():
            sha256 = found.sha256 or None
            shares[sha256] = shares.get(sha256, 0) + percent
        return shares

    def _loaded(self, revision: str) -> Candidate:
        """Empty where there is no such Revision any more."""
        found = self._cluster.find(REVISION, revision)
        return Candidate("", "", "") if found is None else loaded(found["metadata"])

    def _sha256(self, revision: str) -> str | None:
        return self._loaded(revision).sha256 or None

    def _unmade(self, service: Object) -> str | None:
        """Whether the newest revision is not yet of the model that the spec names."""
        created = component(service).get("latestCreatedRevision")
        if created and self._loaded(created) == described(predictor(service)):
            return None
        return "KServe has not made its revision yet"

    def _unready_revision(self, created: str, status: Object) -> str | None:
        revision = self._cluster.get(REVISION, created)
        conditions = (revision.get("status") or {}).get("conditions") or []
        ready: Object = next((condition for condition in conditions if condition["type"] == "Ready"), {})
        if ready.get("status") == "True" and status.get("latestReadyRevision") == created:
            return None
        said = ": ".join(text for text in (ready.get("reason"), ready.get("message")) if text)
        return f"revision {created} is not ready" + (f": {said}" if said else "")

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
        shares = self._shares(status)
        if shares != {candidate.sha256: 100}:
            return f"traffic goes to {_shown(shares)}"
        if status.get("latestRolledoutRevision") != status.get("latestCreatedRevision"):
            return f"the last revision rolled out is {status.get('latestRolledoutRevision')}"
        return None

    def _not_back(self, service: Object, candidate: Candidate) -> str | None:
        shares = self._shares(component(service))
        return None if shares == {candidate.sha256: 100} else f"traffic goes to {_shown(shares)}"

    def _withdraw(self, stable: Candidate) -> None:
        self._cluster.change(
            INFERENCE_SERVICE, self._service, lambda service: knative_withdrawn(service, stable)
        )

    def _wait_for_weight(self, percent: int) -> None:
        def complaint(service: Object) -> str | None:
            weight = self._shares(component(service)).get(sha256_of(predictor(service)), 0)
            return None if weight == percent else f"the canary gets {weight} %"

        self._wait(f"{percent} % for the canary", complaint)

    def _wait(self, what: str, complaint: Callable[[Object], str | None]) -> None:
        self._cluster.wait(lambda: complaint(self._read()), self._timeout_s, f"{self._service}: {what}")


def _shown(shares: dict[str | None, int]) -> str:
    return (
        ", ".join(f"{(sha256 or 'unmarked')[:12]} {share} %" for sha256, share in shares.items()) or "nobody"
    )

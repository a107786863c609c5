"""How many pods the revisions of a rollout keep in Knative mode, whatever the autoscaler makes of their load.

A revision's own minimum is part of its template: to change it would make another revision, that is another
canary. Knative's PodAutoscaler of the revision takes a minimum too, and does not lose it: that one is raised
while a canary has a share, and put back after. The minimum of a revision without a route counts for nothing,
so that one that was taken back scales down as before.
"""

from rollout.targets.cluster import POD_AUTOSCALER, REVISION, Cluster, Object, Patch
from rollout.targets.manifests import REPLICAS, mark

MIN_SCALE = "autoscaling.knative.dev/min-scale"
BEFORE = "churn.rollout/min-scale-before"
"""What the minimum was before we raised it; empty: there was none."""


def held(autoscaler: Object, pods: int, came: int | None = None) -> Patch | None:
    """At least so many pods. `came`: how many pods stable had when the canary came, to be remembered."""
    found = autoscaler["metadata"].get("annotations") or {}
    wanted: dict[str, str] = {}
    if int(found.get(MIN_SCALE) or 0) < pods:
        wanted |= {MIN_SCALE: str(pods), BEFORE: found.get(BEFORE, found.get(MIN_SCALE, ""))}
    if came is not None and REPLICAS not in found:
        wanted[REPLICAS] = str(came)
    return {"metadata": {"annotations": wanted}} if wanted else None


def let_go(autoscaler: Object) -> Patch | None:
    """The minimum that it had before."""
    found = autoscaler["metadata"].get("annotations") or {}
    if BEFORE not in found and REPLICAS not in found:
        return None
    before = found.get(BEFORE, found.get(MIN_SCALE, ""))
    return {"metadata": {"annotations": {MIN_SCALE: before or None, BEFORE: None, REPLICAS: None}}}


class RevisionPods:
    """The pods of the revisions of one namespace."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def running(self, revision: str) -> int:
        """How many run, or are about to."""
        status = self._status(revision)
        return max(int(status.get("actualReplicas") or 0), int(status.get("desiredReplicas") or 0))

    def few(self, revision: str, least: int) -> str | None:
        """Why fewer are up."""
        pods = int(self._status(revision).get("actualReplicas") or 0)
        return None if pods >= least else f"revision {revision}: {pods} of {least} pods are up"

    def when_it_came(self, canary: str) -> int | None:
        """How many stable had then; None before anybody has noted it."""
        found = self._cluster.find(POD_AUTOSCALER, canary)
        noted = None if found is None else mark(found["metadata"], REPLICAS)
        return None if noted is None else int(noted)

    def hold(self, revision: str, pods: int, came: int | None = None) -> None:
        self._cluster.change(POD_AUTOSCALER, revision, lambda found: held(found, pods, came))

    def let_go(self, revision: str) -> None:
        if self._cluster.find(POD_AUTOSCALER, revision) is not None:
            self._cluster.change(POD_AUTOSCALER, revision, let_go)

    def _status(self, revision: str) -> Object:
        return self._cluster.get(REVISION, revision).get("status") or {}

"""The minimum of pods of the revisions of a rollout in Knative mode.

A revision's own minimum is part of its template: a change would make another revision, that is another
canary. Knative's PodAutoscaler of the revision has a minimum too, which stays as it is set: it is raised
while a canary has a share, and restored after. The minimum of a revision without a route has no effect, so
that a canary that was taken back scales down as before.
"""

from rollout.targets.kserve.cluster import POD_AUTOSCALER, REVISION, Cluster, Object, Patch
from rollout.targets.kserve.marks import REPLICAS, mark

MIN_SCALE = "autoscaling.knative.dev/min-scale"
BEFORE = "churn.rollout/min-scale-before"
"""The minimum before a rollout raised it; empty: there was none."""


def raised(autoscaler: Object, pods: int, stable_at_start: int | None = None) -> Patch | None:
    """A minimum of at least `pods`. `stable_at_start`: stable's pods when the canary was deployed, to be
    stored."""
    found = autoscaler["metadata"].get("annotations") or {}
    wanted: dict[str, str] = {}
    if int(found.get(MIN_SCALE) or 0) < pods:
        wanted |= {MIN_SCALE: str(pods), BEFORE: found.get(BEFORE, found.get(MIN_SCALE, ""))}
    if stable_at_start is not None and REPLICAS not in found:
        wanted[REPLICAS] = str(stable_at_start)
    return {"metadata": {"annotations": wanted}} if wanted else None


def restored(autoscaler: Object) -> Patch | None:
    """The minimum of before."""
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
        """The pods that run, or are being started."""
        status = self._status(revision)
        return max(int(status.get("actualReplicas") or 0), int(status.get("desiredReplicas") or 0))

    def are_lacking(self, revision: str) -> bool:
        """Whether its autoscaler has requested more than are up."""
        status = self._status(revision)
        return int(status.get("actualReplicas") or 0) < int(status.get("desiredReplicas") or 0)

    def up(self, revision: str) -> int:
        return int(self._status(revision).get("actualReplicas") or 0)

    def few(self, revision: str, least: int) -> str | None:
        """Why fewer than `least` pods are up; None: there are enough."""
        pods = self.up(revision)
        return None if pods >= least else f"revision {revision}: {pods} of {least} pods are up"

    def stable_at_start(self, canary: str) -> int | None:
        """Stable's pods when the canary was deployed; None: not stored yet."""
        found = self._cluster.find(POD_AUTOSCALER, canary)
        noted = None if found is None else mark(found["metadata"], REPLICAS)
        return None if noted is None else int(noted)

    def hold(self, revision: str, pods: int, stable_at_start: int | None = None) -> None:
        self._cluster.change(POD_AUTOSCALER, revision, lambda found: raised(found, pods, stable_at_start))

    def release(self, revision: str) -> None:
        if self._cluster.find(POD_AUTOSCALER, revision) is not None:
            self._cluster.change(POD_AUTOSCALER, revision, restored)

    def _status(self, revision: str) -> Object:
        return self._cluster.get(REVISION, revision).get("status") or {}

"""A second Route, for the revision that traffic may go back to (Knative mode).

Knative stops the pods of a revision that no Route names, whatever its minimum, and KServe's own names the
former stable revision no more once the canary has all traffic. This Route names it from then on until the
watch is over, so that its pods stay, and again for a later way back, so that they start before it gets
requests. No client knows its address, which is reachable within the cluster only.
"""

from rollout.targets.kserve.cluster import INFERENCE_SERVICE, KNATIVE_ROUTE, Cluster, Object
from rollout.targets.kserve.marks import mark

LOCAL = {"networking.knative.dev/visibility": "cluster-local"}
NEEDED = "churn.rollout/pods-needed"
"""How many pods of its revision must be up before traffic goes back to it."""


class Standby:
    """Of one InferenceService, with which the cluster removes it."""

    def __init__(self, cluster: Cluster, service: str) -> None:
        self._cluster, self._name = cluster, f"{service}-standby"

    def keep(self, revision: str, pods: int, service: Object) -> None:
        """Name `revision`. `pods`: those that must be up before traffic goes back to it."""
        self._cluster.apply(
            KNATIVE_ROUTE,
            self._name,
            {
                "metadata": {
                    "labels": LOCAL,
                    "annotations": {NEEDED: str(pods)},
                    "ownerReferences": [
                        {
                            "apiVersion": f"{INFERENCE_SERVICE.group}/{INFERENCE_SERVICE.version}",
                            "kind": INFERENCE_SERVICE.name,
                            "name": service["metadata"]["name"],
                            "uid": service["metadata"]["uid"],
                        }
                    ],
                },
                "spec": {"traffic": [{"revisionName": revision, "percent": 100}]},
            },
        )

    def needed(self, revision: str) -> int | None:
        """The pods that must be up; None: the Route does not name `revision`."""
        found = self._cluster.find(KNATIVE_ROUTE, self._name)
        if found is None or found["spec"]["traffic"][0].get("revisionName") != revision:
            return None
        return int(mark(found["metadata"], NEEDED) or 1)

    def exists(self) -> bool:
        return self._cluster.find(KNATIVE_ROUTE, self._name) is not None

    def end(self) -> None:
        self._cluster.delete(KNATIVE_ROUTE, self._name)

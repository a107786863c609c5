"""The Revisions of an InferenceService in Knative mode: which archive each loads, and which share it gets."""

from rollout.targets.kserve.cluster import REVISION, Cluster, Object
from rollout.targets.kserve.knative_patches import component
from rollout.targets.kserve.marks import described, loaded, predictor
from rollout.targets.target import Candidate


class Revisions:
    """Traffic is read from the Revisions that get it, by the archive that they load."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def running(self, status: Object) -> dict[Candidate, int]:
        """Archive -> percent of the requests. `status`: of the predictor's component."""
        shares: dict[Candidate, int] = {}
        for part in status.get("traffic") or []:
            if part.get("percent"):
                found = self.loaded(part["revisionName"])
                shares[found] = shares.get(found, 0) + int(part["percent"])
        return shares

    def shares(self, status: Object) -> dict[str | None, int]:
        """sha256 -> percent of the requests; None: archives that no rollout has deployed."""
        shares: dict[str | None, int] = {}
        for found, percent in self.running(status).items():
            sha256 = found.sha256 or None
            shares[sha256] = shares.get(sha256, 0) + percent
        return shares

    def loaded(self, revision: str) -> Candidate:
        """Empty where the Revision does not exist any more."""
        found = self._cluster.find(REVISION, revision)
        return Candidate("", "", "") if found is None else loaded(found["metadata"])

    def sha256(self, revision: str) -> str | None:
        return self.loaded(revision).sha256 or None

    def unmade(self, service: Object) -> str | None:
        """Why the newest revision is not yet of the model in the spec; None: it is."""
        created = component(service).get("latestCreatedRevision")
        if created and self.loaded(created) == described(predictor(service)):
            return None
        return "KServe has not made its revision yet"

    def unready(self, created: str, status: Object) -> str | None:
        """Why the newest revision is not ready; None: it is."""
        revision = self._cluster.get(REVISION, created)
        conditions = (revision.get("status") or {}).get("conditions") or []
        ready: Object = next((condition for condition in conditions if condition["type"] == "Ready"), {})
        if ready.get("status") == "True" and status.get("latestReadyRevision") == created:
            return None
        detail = ": ".join(text for text in (ready.get("reason"), ready.get("message")) if text)
        return f"revision {created} is not ready" + (f": {detail}" if detail else "")


def shown(shares: dict[str | None, int]) -> str:
    return (
        ", ".join(f"{(sha256 or 'unmarked')[:12]} {share} %" for sha256, share in shares.items())
        or "no revision"
    )

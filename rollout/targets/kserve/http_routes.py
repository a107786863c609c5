"""The split of traffic in Standard mode, as the HTTPRoutes of the Gateway API have it."""

from dataclasses import dataclass

from rollout.targets.kserve.cluster import HTTP_ROUTE, Cluster, Object


@dataclass(frozen=True)
class Routed:
    """The split of one HTTPRoute."""

    name: str
    shares: dict[str, float]
    """Service -> percent; where rules differ, the largest of them."""
    agreed: bool
    """Whether all rules split alike, and the gateway has accepted them as they are."""


class Routes:
    """The two HTTPRoutes of a service: that of the public host, and that of the predictor."""

    def __init__(self, cluster: Cluster, service: str) -> None:
        self._cluster = cluster
        self.names = (service, f"{service}-predictor")

    def require(self) -> None:
        """Raises ClusterError where one does not exist."""
        for name in self.names:
            self._cluster.get(HTTP_ROUTE, name)

    def read(self) -> tuple[Routed, ...] | None:
        """None while one does not exist."""
        found = [self._cluster.find(HTTP_ROUTE, name) for name in self.names]
        return tuple(routed(route) for route in found if route is not None) if all(found) else None

    def share(self, name: str) -> float:
        """Percent of the requests that Service `name` gets; where the two differ, the larger."""
        return max((found.shares.get(name, 0.0) for found in self.read() or ()), default=0.0)

    def still_routed(self, name: str) -> str | None:
        """Why Service `name` may still get requests; None: it gets none."""
        for found in self.read() or ():
            if found.shares.get(name, 0) or not found.agreed:
                return f"HTTPRoute {found.name} gives {name} {found.shares.get(name, 0):g} %"
        return None

    def unsettled(self, name: str) -> str | None:
        """Why Service `name` may not get all requests; None: it gets all."""
        for found in self.read() or ():
            if found.shares.get(name, 0) != 100 or not found.agreed:
                return f"HTTPRoute {found.name} gives {name} {found.shares.get(name, 0):g} %"
        return None


def routed(route: Object) -> Routed:
    """Weights as the Gateway API defines them: a backend without one has 1, and shares are of a rule's
    sum."""
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
    return Routed(route["metadata"]["name"], shares, alike and _accepted(route))


def _accepted(route: Object) -> bool:
    parents = (route.get("status") or {}).get("parents") or []
    return bool(parents) and all(
        condition.get("status") == "True"
        and condition.get("observedGeneration", 0) >= route["metadata"]["generation"]
        for parent in parents
        for condition in parent.get("conditions") or []
        if condition["type"] in ("Accepted", "ResolvedRefs")
    )

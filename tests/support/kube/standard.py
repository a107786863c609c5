"""What KServe's controller, Deployments and a gateway do with an InferenceService in Standard mode.

After KServe's master of August 2026 (0.21): inference_service_validation.go, canary_controller_test.go and
httproute_reconciler.go, as this project has documented them. `release="0.20"` makes canaries and routes
nothing to them, and its status states that it does.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from support.kube.api_server import Object, Refused, Store
from support.kube.load import Load

ISVC = ("serving.kserve.io", "inferenceservices")
DEPLOYMENT = ("apps", "deployments")
SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
AUTOSCALER = ("autoscaling", "horizontalpodautoscalers")
ROUTE = ("gateway.networking.k8s.io", "httproutes")


@dataclass
class Standard:
    """Call it for one step. `ready_after`: steps until a pod of a storageUri is available; None: never."""

    release: str = "0.21"
    ready_after: Callable[[str], int | None] = lambda uri: 2
    flapping: set[str] = field(default_factory=set)
    gateway_api: bool = True
    """The ConfigMap's enableGatewayApi."""
    traffic: list[dict[str, int]] = field(default_factory=list)
    """storageUri -> percent at the public host, whenever it changed."""
    unserved: int = 0
    """Steps at which a route sent a share to a backend without an available pod."""
    deleted: dict[str, int] = field(default_factory=dict)
    """Deployment -> pods that were deleted, and whose replacements are still starting."""
    load: Load | None = None
    """With it the autoscaler has work to follow, and pods take `starts_in` steps to start."""
    starts_in: int = 6
    _requested: dict[str, list[int]] = field(default_factory=dict)
    """Deployment -> the pods that were requested, step by step."""
    _pods: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Deployment -> the storageUri that its pods are of, and their age."""

    def __call__(self, store: Store) -> None:
        for service in store.of(*ISVC):
            mode = service["metadata"].get("annotations", {}).get("serving.kserve.io/deploymentMode")
            if mode == "Standard":
                self._kubelet(store)
                self._autoscaler(store, service)
                self._gateway(store, service)
                self._reconcile(store, service)

    # --- KServe

    def _reconcile(self, store: Store, service: Object) -> None:
        stable, canaries = service["spec"]["predictor"], service["spec"].get("canary") or []
        least = stable.get("minReplicas", 1)
        wanted: dict[str, tuple[Object, int, int]] = {}
        """Deployment -> its predictor, and its fewest and most pods."""
        statuses, ready = [], []
        for entry in canaries:
            part = overridden(stable, entry["predictor"])
            name = workload(service, part)
            percent = entry["trafficPercent"]
            pods = entry["predictor"].get("minReplicas", ceil(least * percent / 100))
            wanted[name] = part, pods, pods
            up = _available(store, service, name) > 0
            statuses.append({"name": part["name"], "ready": up, "trafficPercent": percent})
            if up:
                ready.append((name, percent, pods))
        main = workload(service, stable)
        floor = max(1, least - sum(pods for _, _, pods in ready))
        wanted[main] = stable, floor, stable.get("maxReplicas", 0)
        for name, (part, fewest, most) in wanted.items():
            self._deploy(store, service, name, part, fewest, most)
        owned = [found for found in store.of(*DEPLOYMENT) if found["metadata"]["owner"] == _uid(service)]
        for found in owned:
            name = found["metadata"]["name"]
            if name not in wanted:
                store.delete(*DEPLOYMENT, found["metadata"]["namespace"], name)
                self._pods.pop(name, None)
        # KServe changes no route while the predictor is not ready, also not to take a canary's share away
        if self.gateway_api and _ready(store, service, main):
            routed = [] if self.release == "0.20" else ready
            self._route(store, service, main, routed)
        status: Object = {"deploymentMode": "Standard", "components": {"predictor": {}}}
        if statuses:
            status["canaryStatuses"] = statuses
        store.put_status(service, status)

    def _deploy(self, store: Store, service: Object, name: str, part: Object, fewest: int, most: int) -> None:
        own = service["metadata"].get("annotations", {})
        scaled = own.get("serving.kserve.io/autoscalerClass", "hpa") == "hpa"
        annotations = own | part.get("annotations", {})
        if uri := part["model"].get("storageUri"):
            annotations |= {SOURCE: uri}
        template = {"metadata": {"annotations": annotations}, "spec": {"model": _without_name(part["model"])}}
        meta = {"name": name, "namespace": service["metadata"]["namespace"], "owner": _uid(service)}
        found = store.get(*DEPLOYMENT, meta["namespace"], name)
        # KServe leaves the number to the autoscaler, and a new Deployment has one pod
        now = 1 if found is None else found["spec"]["replicas"]
        spec = {
            "replicas": now if scaled else fewest,
            "selector": {"matchLabels": {"app": f"isvc.{name}"}},
            "template": template,
        }
        store.put(*DEPLOYMENT, {"metadata": meta, "spec": spec})
        if not scaled:
            return
        owner = {"kind": "InferenceService", "name": service["metadata"]["name"]}
        meta = {"name": name, "namespace": meta["namespace"], "ownerReferences": [owner]}
        bounds = {"minReplicas": max(1, fewest), "maxReplicas": max(1, fewest, most)}
        # it stays when its Deployment goes, as with KServe of August 2026
        store.put(*AUTOSCALER, {"metadata": meta, "spec": {"scaleTargetRef": {"name": name}, **bounds}})

    def _route(self, store: Store, service: Object, main: str, ready: list[tuple[str, int, int]]) -> None:
        backends: list[Object] = [{"kind": "Service", "name": main, "port": 80}]
        if ready:
            backends[0]["weight"] = 100 - sum(percent for _, percent, _ in ready)
            backends += [{"kind": "Service", "name": n, "port": 80, "weight": p} for n, p, _ in ready]
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        for route in (name, f"{name}-predictor"):
            meta = {"name": route, "namespace": namespace}
            store.put(
                *ROUTE, {"metadata": meta, "spec": {"rules": [{"backendRefs": copy.deepcopy(backends)}]}}
            )

    # --- Kubernetes

    def _kubelet(self, store: Store) -> None:
        for deployment in store.of(*DEPLOYMENT):
            name, spec = deployment["metadata"]["name"], deployment["spec"]
            uri = spec["template"]["spec"]["model"].get("storageUri", "")
            of, age = self._pods.get(name, (uri, 0))
            after = self.ready_after(uri) if uri else None
            up = after is not None and age >= after and not (uri in self.flapping and age % 2)
            before = (deployment.get("status") or {}).get("availableReplicas", 0)
            # a rolling update: old pods stay until new ones are available, and count as available
            available = self._started(name, spec["replicas"]) if up else before if of != uri else 0
            if missing := self.deleted.get(name, 0):
                # fewer pods: those that are not ready go first
                fewer = max(0, (deployment.get("status") or {}).get("replicas", 0) - spec["replicas"])
                self.deleted[name] = max(0, missing - fewer)
                available = max(0, available - self.deleted[name])
            self._pods[name] = (uri if up else of, age + 1) if of == uri or up else (of, age + 1)
            status = {
                "observedGeneration": deployment["metadata"]["generation"],
                "replicas": spec["replicas"],
                "updatedReplicas": spec["replicas"] if up else 0,
                "availableReplicas": available,
            }
            if available < fewest_available(spec["replicas"]):
                status["conditions"] = [
                    {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable",
                     "message": "Deployment does not have minimum availability."}
                ]  # fmt: skip
            store.put_status(deployment, status)

    def _autoscaler(self, store: Store, service: Object) -> None:
        """A HorizontalPodAutoscaler keeps the pods within its bounds. It takes pods away only after minutes,
        which without load never pass here."""
        route = store.get(*ROUTE, service["metadata"]["namespace"], service["metadata"]["name"])
        shares = {} if route is None else split_of(route)
        for found in store.of(*AUTOSCALER):
            name, bounds = found["metadata"]["name"], found["spec"]
            deployment = store.get(*DEPLOYMENT, found["metadata"]["namespace"], name)
            if deployment is None:
                continue
            least, most = bounds["minReplicas"], bounds["maxReplicas"]
            now = deployment["spec"]["replicas"]
            wanted = min(max(now, least), most)
            if self.load is not None and least < most:
                wanted = self.load.replicas(name, shares.get(name, 100.0), now, least, most)
            store.put(*DEPLOYMENT, {**deployment, "spec": {**deployment["spec"], "replicas": wanted}})

    def _started(self, name: str, requested: int) -> int:
        """Pods that were requested long enough ago; the first come with the Deployment itself."""
        if self.load is None:
            return requested
        history = self._requested.setdefault(name, [requested] * self.starts_in)
        history.append(requested)
        return min(history[-self.starts_in :])

    def _gateway(self, store: Store, service: Object) -> None:
        for route in store.of(*ROUTE):
            conditions = [
                {"type": kind, "status": "True", "observedGeneration": route["metadata"]["generation"]}
                for kind in ("Accepted", "ResolvedRefs")
            ]
            store.put_status(route, {"parents": [{"conditions": conditions}]})
        route = store.get(*ROUTE, service["metadata"]["namespace"], service["metadata"]["name"])
        if route is None:
            return
        if self.load is not None:
            for name, share in split_of(route).items():
                self.load.arrives(name, share, _available(store, service, name))
        shares: dict[str, int] = {}
        for backend in route["spec"]["rules"][0]["backendRefs"]:
            weight = backend.get("weight", 100)
            found = store.get(*DEPLOYMENT, service["metadata"]["namespace"], backend["name"])
            if found is None or not (found.get("status") or {}).get("availableReplicas"):
                self.unserved += 1 if weight else 0
                continue
            uri = found["spec"]["template"]["spec"]["model"].get("storageUri", "")
            shares[uri] = shares.get(uri, 0) + weight
        if not self.traffic or self.traffic[-1] != shares:
            self.traffic.append(shares)


def split_of(route: Object) -> dict[str, float]:
    """Backend -> percent."""
    weights = {b["name"]: b.get("weight", 100) for b in route["spec"]["rules"][0]["backendRefs"]}
    total = sum(weights.values()) or 1
    return {name: 100.0 * weight / total for name, weight in weights.items()}


def workload(service: Object, part: Object) -> str:
    middle = f"-{part['name']}" if part.get("name") else ""
    return f"{service['metadata']['name']}{middle}-predictor"


def overridden(stable: Any, canary: Any) -> Any:
    """mergo with override: what is empty in the canary is inherited, lists are replaced."""
    if isinstance(stable, dict) and isinstance(canary, dict):
        merged = {**stable}
        for key, value in canary.items():
            merged[key] = overridden(stable.get(key), value)
        return merged
    return stable if canary in (None, "", 0, [], {}) else canary


def admit(service: Object, before: Object | None) -> None:
    """KServe's validating webhook: the rules about canaries."""
    stable, canaries = service["spec"]["predictor"], service["spec"].get("canary") or []
    if stable.get("model", {}).get("name"):
        _deny("spec.predictor.model.name must not be set")
    old = before["spec"]["predictor"] if before else None
    if (
        old is not None
        and old.get("name") != stable.get("name")
        and old["model"].get("storageUri") == stable["model"].get("storageUri")
    ):
        _deny("predictor.name can only be changed when storageUri changes")
    if not canaries:
        return
    if service["metadata"].get("annotations", {}).get("serving.kserve.io/deploymentMode") != "Standard":
        _deny("canary is only supported in Standard deployment mode")
    if not stable.get("model", {}).get("storageUri"):
        _deny("the stable predictor has no model")
    names = [entry["predictor"].get("name") for entry in canaries]
    if not all(names) or len({*names, stable.get("name")}) != len(names) + 1:
        _deny("canary predictor names must be set, unique and different from the stable predictor's")
    if sum(entry["trafficPercent"] for entry in canaries) > 100:
        _deny("the sum of trafficPercent must not exceed 100")
    for entry in canaries:
        part = entry["predictor"]
        for key in ("workerSpec", "maxReplicas", "scaleTarget", "scaleMetric", "autoScaling"):
            if key in part:
                _deny(f"canary predictor: {key} is not supported")
        if part.get("minReplicas", 0) > stable.get("minReplicas", 1):
            _deny("canary minReplicas must not exceed the stable predictor's")
        if "model" not in part:
            _deny("canary predictor must have exactly one implementation")


def _deny(message: str) -> None:
    raise Refused(
        403,
        "Forbidden",
        f'admission webhook "inferenceservice.kserve-webhook-server.validator" denied the request: {message}',
    )


def _available(store: Store, service: Object, name: str) -> int:
    found = store.get(*DEPLOYMENT, service["metadata"]["namespace"], name)
    return int(((found or {}).get("status") or {}).get("availableReplicas", 0))


def fewest_available(replicas: int) -> int:
    """With fewer pods a Deployment is not Available: maxUnavailable is 25 %, rounded down."""
    return replicas - replicas // 4


def _ready(store: Store, service: Object, name: str) -> bool:
    """KServe's condition PredictorReady, which is the Deployment's Available."""
    found = store.get(*DEPLOYMENT, service["metadata"]["namespace"], name)
    available = _available(store, service, name)
    return found is not None and available >= max(1, fewest_available(found["spec"]["replicas"]))


def _uid(service: Object) -> str:
    return str(service["metadata"]["uid"])


def _without_name(model: Object) -> Object:
    return {key: value for key, value in model.items() if key != "name"}

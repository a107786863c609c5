"""What KServe's controller and Knative Serving do with an InferenceService in Knative mode.

After kserve's ksvc_reconciler.go (traffic targets) and inference_service_status.go (PropagateStatus: which
revision counts as rolled out), and Knative's rules: a changed template is a new revision, `latestRevision`
means the latest that is ready, and a revision that was ready once stays "latest ready". Each revision has a
PodAutoscaler, made once with the minimum of its template; a minimum that is changed there later holds while a
route names the revision.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

from support.kube.api_server import Object, Refused, Store
from support.kube.load import Load

ISVC = ("serving.kserve.io", "inferenceservices")
ROUTE = ("serving.knative.dev", "routes")
REVISION = ("serving.knative.dev", "revisions")
AUTOSCALER = ("autoscaling.internal.knative.dev", "podautoscalers")
MIN_SCALE = "autoscaling.knative.dev/min-scale"
SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
NOT_COPIED = {"kubectl.kubernetes.io/last-applied-configuration"}


@dataclass
class Knative:
    """Call it for one step. `ready_after`: steps until a revision of a storageUri is ready; None: never."""

    ready_after: Callable[[str], int | None] = lambda uri: 2
    flapping: set[str] = field(default_factory=set)
    routes_first: bool = False
    """The race: traffic changes before the new revision exists."""
    """storageUris whose revisions are ready at every other step only."""
    traffic: list[dict[str, int]] = field(default_factory=list)
    """storageUri -> percent, whenever it changed: what customers got."""
    load: Load | None = None
    """With it an autoscaler sizes each revision, and pods take `starts_in` steps to start."""
    starts_in: int = 6
    _requested: dict[str, list[int]] = field(default_factory=dict)
    """Revision -> the pods that were requested, step by step."""
    _services: dict[str, Object] = field(default_factory=dict)
    _ages: dict[str, int] = field(default_factory=dict)

    def __call__(self, store: Store) -> None:
        for service in store.of(*ISVC):
            if (
                service["metadata"].get("annotations", {}).get("serving.kserve.io/deploymentMode")
                == "Knative"
            ):
                ksvc = self._services.setdefault(
                    service["metadata"]["name"],
                    {"template": None, "traffic": [], "created": "", "ready": "", "status": [], "count": 0},
                )
                # each on what the other has left: nothing takes effect within one step
                self._propagate(store, service, ksvc)
                self._reconcile(service, ksvc)
                self._serve(store, service, ksvc)

    def _reconcile(self, service: Object, ksvc: Object) -> None:
        """KServe: the InferenceService becomes template and traffic of a Knative Service."""
        part = service["spec"]["predictor"]
        annotations = {
            key: text
            for key, text in (
                service["metadata"].get("annotations", {}) | part.get("annotations", {})
            ).items()
            if key not in NOT_COPIED
        } | source_of(part)
        spec = {
            key: value for key, value in part.items() if key not in ("canaryTrafficPercent", "annotations")
        }
        ksvc["template"] = {"annotations": annotations, "spec": copy.deepcopy(spec)}
        tag = {"tag": "latest"} if annotations.get("serving.kserve.io/enable-tag-routing") == "true" else {}
        rolledout = _component(service).get("latestRolledoutRevision", "")
        percent = part.get("canaryTrafficPercent")
        if percent is not None and rolledout:
            ksvc["traffic"] = [{"latestRevision": True, "percent": percent, **tag}]
            if percent < 100:
                ksvc["traffic"].append({"revisionName": rolledout, "percent": 100 - percent, "tag": "prev"})
        else:
            ksvc["traffic"] = [{"latestRevision": True, "percent": 100, **tag}]

    def _serve(self, store: Store, service: Object, ksvc: Object) -> None:
        """Knative: the template becomes a revision, the latest that is ready gets its traffic."""
        namespace = service["metadata"]["namespace"]
        created = store.get(*REVISION, namespace, ksvc["created"])
        late = self.routes_first and created is not None and _template(created) == ksvc.get("before")
        ksvc["before"] = ksvc["template"]
        if created is None or (_template(created) != ksvc["template"] and not late):
            ksvc["count"] += 1
            ksvc["created"] = f"{service['metadata']['name']}-predictor-{ksvc['count']:05d}"
            meta = {
                "name": ksvc["created"],
                "namespace": namespace,
                "annotations": ksvc["template"]["annotations"],
            }
            store.put(*REVISION, {"metadata": meta, "spec": ksvc["template"]["spec"]})
            least = str(ksvc["template"]["spec"].get("minReplicas", 1))
            own = {**meta, "annotations": {**meta["annotations"], MIN_SCALE: least}}
            store.put(*AUTOSCALER, {"metadata": own, "spec": {}})
        for revision in store.of(*REVISION):
            self._age(store, revision, ksvc)
        if ksvc["ready"]:
            ksvc["status"] = [
                {"revisionName": part.get("revisionName", ksvc["ready"]), "latestRevision": False, **part}
                for part in ksvc["traffic"]
            ]
            for part in ksvc["status"]:
                if "tag" in part:
                    part["url"] = (
                        f"http://{part['tag']}-{service['metadata']['name']}-predictor.churn.example"
                    )
            shares: dict[str, int] = {}
            for part in ksvc["status"]:
                target = store.get(*REVISION, namespace, part["revisionName"])
                assert target is not None
                uri = target["spec"]["model"].get("storageUri", "")
                shares[uri] = shares.get(uri, 0) + part["percent"]
            if self.load is not None:
                for part in ksvc["status"]:
                    pods = store.get(*REVISION, namespace, part["revisionName"])
                    self.load.arrives(
                        part["revisionName"], part["percent"], (pods or {})["status"]["actualReplicas"]
                    )
            if not self.traffic or self.traffic[-1] != shares:
                self.traffic.append(shares)

    def _age(self, store: Store, revision: Object, ksvc: Object) -> None:
        name, uri = revision["metadata"]["name"], revision["spec"]["model"].get("storageUri", "")
        age = self._ages[name] = self._ages.get(name, 0) + 1
        after = self.ready_after(uri) if uri else None
        before = (revision.get("status") or {}).get("conditions") or [{}]
        started = before[0].get("status") == "True" or (after is not None and age >= after)
        up = started and not (uri in self.flapping and age % 2)
        condition = {"type": "Ready", "status": "True" if up else "Unknown"}
        if not up:
            condition |= {"reason": "Deploying", "message": "container is not ready"}
        wanted, running = self._scaled(store, revision, ksvc)
        pods = {"desiredReplicas": wanted, "actualReplicas": running if up else 0}
        store.put_status(revision, {"conditions": [condition], **pods})
        if up and name > ksvc["ready"]:
            ksvc["ready"] = name

    def _scaled(self, store: Store, revision: Object, ksvc: Object) -> tuple[int, int]:
        """Pods that the autoscaler requests, and those that have had the time to start."""
        meta, spec = revision["metadata"], revision["spec"]
        routed = [part["percent"] for part in ksvc["status"] if part["revisionName"] == meta["name"]]
        others = [part["revisionName"] for route in store.of(*ROUTE) for part in route["spec"]["traffic"]]
        reachable = bool(routed) or meta["name"] in (ksvc["created"], *others)
        autoscaler = store.get(*AUTOSCALER, meta["namespace"], meta["name"])
        assert autoscaler is not None
        least = int(autoscaler["metadata"]["annotations"].get(MIN_SCALE, 0)) if reachable else 0
        most = spec.get("maxReplicas", 1000)
        if self.load is None:
            return least, least
        now = (revision.get("status") or {}).get("actualReplicas", 0)
        wanted = self.load.replicas(meta["name"], sum(routed), now, least, most)
        history = self._requested.setdefault(meta["name"], [wanted] * self.starts_in)
        history.append(wanted)
        return wanted, min(history[-self.starts_in :])

    def _propagate(self, store: Store, service: Object, ksvc: Object) -> None:
        """KServe: what Knative has come to becomes status (PropagateStatus)."""
        if not ksvc["created"]:
            return
        status = copy.deepcopy(_component(service))
        totals: dict[str, int] = {}
        for part in ksvc["status"]:
            totals[part["revisionName"]] = totals.get(part["revisionName"], 0) + part["percent"]
        for part in ksvc["status"]:
            if not part["latestRevision"] or part["revisionName"] != ksvc["ready"]:
                continue
            if status.get("latestRolledoutRevision", "") != ksvc["ready"]:
                if part["percent"] == 100:
                    status["previousRolledoutRevision"] = status.get("latestRolledoutRevision", "")
                    status["latestRolledoutRevision"] = ksvc["ready"]
            elif (
                ksvc["ready"] == ksvc["created"]
                and part["percent"] < 100
                and totals[part["revisionName"]] == 100
                and status.get("previousRolledoutRevision")
            ):
                # rolled out, and then rolled back: one step, and no further
                status["latestRolledoutRevision"] = status["previousRolledoutRevision"]
        status |= {"latestCreatedRevision": ksvc["created"], "traffic": copy.deepcopy(ksvc["status"])}
        if ksvc["ready"]:
            status["latestReadyRevision"] = ksvc["ready"]
        store.put_status(service, {"components": {"predictor": status}, "deploymentMode": "Knative"})


def admit(service: Object, before: Object | None) -> None:
    """KServe's validating webhook, as far as it concerns the one predictor."""
    part = service["spec"]["predictor"]
    if part.get("model", {}).get("name"):
        _deny("spec.predictor.model.name must not be set")
    percent = part.get("canaryTrafficPercent")
    if percent is not None and not 0 <= percent <= 100:
        _deny("canaryTrafficPercent must be between 0 and 100")


def _deny(message: str) -> None:
    raise Refused(
        403,
        "Forbidden",
        f'admission webhook "inferenceservice.kserve-webhook-server.validator" denied the request: {message}',
    )


def source_of(part: Object) -> dict[str, str]:
    """KServe's annotation of the address; none without one, as before the first model."""
    uri = part["model"].get("storageUri")
    return {SOURCE: uri} if uri else {}


def _template(revision: Object) -> Object:
    return {"annotations": revision["metadata"]["annotations"], "spec": revision["spec"]}


def _component(service: Object) -> Object:
    found: Object = (service.get("status") or {}).get("components", {}).get("predictor", {})
    return found

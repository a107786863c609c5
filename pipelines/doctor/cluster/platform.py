"""What the people who run the cluster have installed: Kubernetes, KServe, a gateway or Knative, metrics."""

import json
from typing import Any

from pipelines.doctor.check import Result, broken, ok, warning
from pipelines.doctor.cluster.objects import Object, Read, definition, namespaced

KSERVE = "kserve"
"""The namespace in which KServe's installation puts its manager and its ConfigMap."""
MANAGER = namespaced(KSERVE, "deployments", "kserve-controller-manager", "apps")
CONFIG = namespaced(KSERVE, "configmaps", "inferenceservice-config")
SERVICES, RUNTIMES = (
    definition(f"{plural}.serving.kserve.io") for plural in ("inferenceservices", "servingruntimes")
)
REVISIONS = definition("revisions.serving.knative.dev")
METRICS = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"


def api_server(read: Read) -> Result:
    found = read("/version") or {}
    return ok(f"Kubernetes {found.get('gitVersion', 'of an unknown version')}")


def kserve(read: Read, mode: str) -> Result:
    """`mode`: rollout.target, `standard` or `knative`."""
    services, runtimes = read(SERVICES), read(RUNTIMES)
    if services is None or runtimes is None:
        return broken("KServe's CRDs are not installed", "install KServe 0.21, then run this again")
    if mode == "standard" and '"trafficPercent"' not in json.dumps(services):
        return broken(
            "InferenceServices of this KServe have no spec.canary, so that Standard mode has no canaries",
            "install KServe 0.21, or use the overlay knative with rollout.target=knative",
        )
    manager = read(MANAGER)
    if manager is None:
        return broken(
            f"its CRDs are there, its manager is not in the namespace {KSERVE}", "install KServe's manager"
        )
    images = [
        one["image"] for one in manager["spec"]["template"]["spec"]["containers"] if one["name"] == "manager"
    ]
    if not manager["status"].get("availableReplicas"):
        return broken(
            "its manager is not available: nothing changes, and every change is refused by its webhook",
            f"kubectl -n {KSERVE} describe deployment kserve-controller-manager",
        )
    return ok(f"{images[0] if images else 'its manager'} is available")


def routing(read: Read, mode: str) -> Result:
    """Who splits traffic: the Gateway API in Standard mode, Knative in the other."""
    settings = read(CONFIG)
    if settings is None:
        return broken(
            f"the ConfigMap inferenceservice-config is not in the namespace {KSERVE}", "install KServe"
        )
    if mode == "knative":
        if read(REVISIONS) is None:
            return broken("Knative Serving is not installed", "install it, or set rollout.target to standard")
        return ok("Knative Serving is installed")
    ingress = _parsed(settings, "ingress")
    if not ingress.get("enableGatewayApi"):
        return broken(
            "enableGatewayApi is not true in KServe's ConfigMap inferenceservice-config, key ingress",
            f"kubectl -n {KSERVE} edit configmap inferenceservice-config",
        )
    where, _, name = str(ingress.get("kserveIngressGateway", "")).partition("/")
    gateway = read(namespaced(where, "gateways", name, "gateway.networking.k8s.io"))
    if gateway is None:
        return broken(
            f"the Gateway {where}/{name}, which KServe's ConfigMap names, does not exist",
            "make it, or correct kserveIngressGateway there",
        )
    if _conditions(gateway).get("Programmed") != "True":
        return broken(
            f"the Gateway {where}/{name} is not programmed", f"kubectl -n {where} describe gateway {name}"
        )
    return ok(f"Gateway {where}/{name} is programmed")


def pod_metrics(read: Read) -> Result:
    """Without them an autoscaler keeps the smallest number of pods."""
    service = read(METRICS)
    conditions = {} if service is None else _conditions(service)
    if conditions.get("Available") != "True":
        return warning(
            "there are no metrics of pods, so that the autoscaler cannot count: minReplicas pods will run",
            "install metrics-server, or use an overlay with a fixed number of pods",
        )
    return ok("metrics of pods are available to autoscalers")


def _parsed(settings: Object, key: str) -> Any:
    try:
        return json.loads(settings["data"][key])
    except (KeyError, ValueError):
        return {}


def _conditions(found: Object) -> dict[str, str]:
    return {one["type"]: one["status"] for one in found.get("status", {}).get("conditions", [])}

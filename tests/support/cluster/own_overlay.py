"""What the overlay of a company changes: here images, smaller pods, the certificate of the stores, and the
time at which the log of purchases ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from support.cluster import certificate
from support.cluster.addresses import Addresses

CONTROLLER_IMAGE = "registry.example.com/churn-train:1.0.0"


@dataclass(frozen=True)
class Size:
    """Small enough for a node of two cores, with room for two pods of a canary beside the minimum of two.
    `cpu`: of a pod, of which the autoscaler uses `target` %: probes alone are much of a request so small."""

    cpu: str = "200m"
    memory: str = "600Mi"
    most_memory: str = "800Mi"
    most_pods: int = 4
    target: int = 100
    least_pods: int | None = None
    """None: as the overlay has it."""


# no autoscaler of Knative looks at CPU here, and its revisions have more pods
SMALL = {"standard": Size(), "knative": Size(cpu="100m")}


def offset_s(now: str) -> float:
    """Of the clock in the pods, where it is `now`: made once, since another value starts new pods."""
    return (datetime.fromisoformat(now) - datetime.now(UTC)).total_seconds()


def images(to: Addresses, serve: str) -> list[dict[str, str]]:
    """Of a kustomization."""
    return [
        _image("registry.example.com/churn-serve", serve),
        _image("registry.example.com/churn-train", to.controller_image or CONTROLLER_IMAGE),
    ]


def _image(name: str, ours: str) -> dict[str, str]:
    to, _, tag = ours.rpartition(":")
    return {"name": name, "newName": to, "newTag": tag}


def patches(
    to: Addresses, clock_offset_s: float, size: Size, flags: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Of a kustomization. `flags`: of the controller's command."""
    clock = {"name": "CHURN_CLOCK_OFFSET_S", "value": str(clock_offset_s)}
    pod, controller = "/spec/containers/0", "/spec/template/spec/containers/0"
    runtime = [
        {"op": "add", "path": f"{pod}/env/-", "value": clock},
        _replaced(f"{pod}/resources/requests", {"cpu": size.cpu, "memory": size.memory}),
        _replaced(f"{pod}/resources/limits/memory", size.most_memory),
        *certificate.mounted(to.certificate, "/spec"),
    ]
    # the number of its pods is in no manifest: tests begin and end it (controllers.py)
    rollouts = [
        {"op": "remove", "path": "/spec/replicas"},
        _replaced(f"{controller}/env/3/value", to.prometheus),
        _replaced(f"{controller}/resources/requests", {"cpu": "50m", "memory": "300Mi"}),
        *({"op": "add", "path": f"{controller}/args/-", "value": word} for word in flags),
        *certificate.mounted(to.certificate, "/spec/template/spec"),
    ]
    service = [
        _replaced("/spec/predictor/maxReplicas", size.most_pods),
        _replaced("/spec/predictor/scaleTarget", size.target),
    ]
    if size.least_pods is not None:
        service.append(_replaced("/spec/predictor/minReplicas", size.least_pods))
    return [
        {"target": {"kind": "ServingRuntime"}, "patch": yaml.safe_dump(runtime)},
        {"target": {"kind": "InferenceService"}, "patch": yaml.safe_dump(service)},
        {"target": {"kind": "Deployment", "name": "churn-rollout"}, "patch": yaml.safe_dump(rollouts)},
    ]


def _replaced(path: str, value: Any) -> dict[str, Any]:
    return {"op": "replace", "path": path, "value": value}

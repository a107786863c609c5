"""What the cluster that KUBECONFIG names has, so that a skip can name what is missing."""

import json
import os
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest


def kubectl(*words: str, body: str | None = None, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["kubectl", *words], input=body, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def done(*words: str, body: str | None = None) -> str:
    """The output of a call that has to succeed."""
    called = kubectl(*words, body=body)
    assert called.returncode == 0, f"kubectl {' '.join(words)}: {called.stderr}"
    return called.stdout


def found(*words: str) -> Any:
    """An object as JSON; None where it, or its kind, does not exist."""
    called = kubectl("get", *words, "-o", "json")
    return json.loads(called.stdout) if called.returncode == 0 else None


@dataclass(frozen=True)
class Inventory:
    kserve: str
    """The image of its manager; empty without KServe."""
    canaries: bool
    """Whether InferenceServices have `spec.canary`: KServe 0.20 and newer."""
    gateway_api: bool
    """Whether KServe routes by the Gateway API."""
    knative: bool
    metrics: bool

    def needs(self, mode: str) -> None:
        """Skips with the name of what is missing. `mode`: standard or knative."""
        self.needs_standard() if mode == "standard" else self.needs_knative()

    def needs_standard(self) -> None:
        if not self.kserve:
            pytest.skip("cluster: KServe is not installed")
        if not self.canaries:
            pytest.skip(f"cluster: {self.kserve} has no canaries in Standard mode; install KServe 0.21")
        if not self.gateway_api:
            pytest.skip(
                "cluster: enableGatewayApi is not true in KServe's ConfigMap, or there is no Gateway API"
            )

    def needs_knative(self) -> None:
        if not self.kserve or not self.knative:
            pytest.skip("cluster: Knative Serving or KServe is not installed")


def inventory() -> Inventory:
    if kubectl("version").returncode:
        pytest.fail(f"KUBECONFIG={os.environ.get('KUBECONFIG')}: the cluster does not answer")
    manager = found("deployment", "kserve-controller-manager", "-n", "kserve") or {}
    containers = manager.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])
    crd = json.dumps(found("crd", "inferenceservices.serving.kserve.io") or {})
    settings = (found("configmap", "inferenceservice-config", "-n", "kserve") or {}).get("data", {})
    ingress = json.loads(settings.get("ingress", "{}"))
    return Inventory(
        kserve=next((one["image"] for one in containers if one["name"] == "manager"), ""),
        canaries='"trafficPercent"' in crd,
        gateway_api=bool(ingress.get("enableGatewayApi"))
        and found("crd", "httproutes.gateway.networking.k8s.io") is not None,
        knative=found("crd", "revisions.serving.knative.dev") is not None,
        metrics=found("apiservice", "v1beta1.metrics.k8s.io") is not None,
    )

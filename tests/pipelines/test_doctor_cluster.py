"""`churn doctor --cluster`: each fault of a cluster is named, with its remedy.

The objects are those of our overlay, as `kubectl kustomize` renders it, and those that KServe's installation
makes, with the fields that are read. tests/cluster runs the command on a real cluster.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml

from pipelines.doctor.check import Result, State
from pipelines.doctor.cluster import platform, service
from pipelines.doctor.cluster.objects import NotAllowed, Object, namespaced
from rollout.config import KServeConfig

OVERLAY = Path(__file__).resolve().parents[2] / "kserve" / "overlays" / "standard"
CONFIG = KServeConfig()
PLURALS = {
    "ServingRuntime": ("servingruntimes", "serving.kserve.io", "v1alpha1"),
    "InferenceService": ("inferenceservices", "serving.kserve.io", "v1beta1"),
    "ServiceAccount": ("serviceaccounts",),
    "RoleBinding": ("rolebindings", "rbac.authorization.k8s.io"),
    "Deployment": ("deployments", "apps"),
}
GATEWAY = namespaced("kserve", "gateways", "ingress", "gateway.networking.k8s.io")
RUNTIME = namespaced("churn", "servingruntimes", "churn-torchserve", "serving.kserve.io", "v1alpha1")
SERVICE = namespaced("churn", "inferenceservices", "churn", "serving.kserve.io", "v1beta1")
SECRET = namespaced("churn", "secrets", "churn-features")
PODS = "/api/v1/namespaces/churn/pods?labelSelector=serving.kserve.io/inferenceservice%3Dchurn"
MANAGER = {"name": "manager", "image": "kserve/kserve-controller:v0.21.0"}


@cache
def rendered() -> tuple[Object, ...]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(["kubectl", "kustomize", str(OVERLAY)], capture_output=True, text=True, check=True)
    return tuple(yaml.safe_load_all(done.stdout))


@pytest.fixture
def there() -> dict[str, Object]:
    """A cluster in which everything is as it should be, by path."""
    ingress = {"enableGatewayApi": True, "kserveIngressGateway": "kserve/ingress"}
    found: dict[str, Object] = {
        "/version": {"gitVersion": "v1.34.4"},
        "/api/v1/namespaces/churn": {},
        platform.SERVICES: {"spec": {"canary": {"trafficPercent": {}}}},
        platform.RUNTIMES: {},
        platform.MANAGER: {
            "spec": {"template": {"spec": {"containers": [MANAGER]}}},
            "status": {"availableReplicas": 1},
        },
        platform.CONFIG: {"data": {"ingress": json.dumps(ingress)}},
        GATEWAY: {"status": {"conditions": [{"type": "Programmed", "status": "True"}]}},
        platform.METRICS: {"status": {"conditions": [{"type": "Available", "status": "True"}]}},
        SECRET: {"data": {"online": "", "registry": ""}},
        namespaced("churn", "secrets", "churn-mask-key"): {"data": {"key": ""}},
        namespaced("churn", "secrets", "churn-storage"): {"data": {}},
        namespaced("churn", "secrets", "churn-rollout"): {"data": {"database": "", "tracking-uri": ""}},
        namespaced("churn", "configmaps", "churn-trusted-signers"): {"data": {"trusted-signers": ""}},
    }
    for one in json.loads(json.dumps(rendered())):
        if one["kind"] in PLURALS:
            plural, *group = PLURALS[one["kind"]]
            found[namespaced("churn", plural, one["metadata"]["name"], *group)] = one
    [container] = found[RUNTIME]["spec"]["containers"]
    container["image"] = "registry.shop.example/churn-serve:1.0.0"
    found[SERVICE]["spec"]["predictor"]["model"]["storageUri"] = "s3://models/churn/1"
    found[SERVICE]["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
    return found


CHECKS: dict[str, Callable[[dict[str, Object]], Result]] = {
    "API server": lambda there: platform.api_server(there.get),
    "KServe": lambda there: platform.kserve(there.get, "standard"),
    "gateway": lambda there: platform.routing(there.get, "standard"),
    "metrics": lambda there: platform.pod_metrics(there.get),
    "overlay": lambda there: service.applied(there.get, CONFIG),
    "secrets": lambda there: service.secrets(there.get, CONFIG),
    "model": lambda there: service.model(there.get, CONFIG),
}


@pytest.mark.parametrize("check", CHECKS)
def test_a_cluster_that_has_everything_passes(there: dict[str, Object], check: str) -> None:
    assert CHECKS[check](there).state is State.OK


def not_ready(there: dict[str, Object]) -> None:
    there[SERVICE]["status"]["conditions"][0]["status"] = "False"
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}
    there[PODS] = {
        "items": [
            {
                "metadata": {"name": "churn-1", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "status": {"phase": "Pending", "containerStatuses": [{"name": "c", "state": state}]},
            }
        ]
    }


HARM: list[tuple[str, Callable[[dict[str, Object]], object], str, str]] = [
    ("KServe", lambda t: t.pop(platform.SERVICES), "CRDs are not installed", "install KServe"),
    ("KServe", lambda t: t[platform.SERVICES].clear(), "no spec.canary", "overlay knative"),
    ("KServe", lambda t: t[platform.MANAGER]["status"].clear(), "not available", "describe deployment"),
    ("gateway", lambda t: t[platform.CONFIG].clear(), "enableGatewayApi is not true", "edit configmap"),
    ("gateway", lambda t: t.pop(GATEWAY), "the Gateway kserve/ingress", "correct kserveIngressGateway"),
    ("gateway", lambda t: t[GATEWAY].clear(), "not programmed", "describe gateway"),
    ("overlay", lambda t: t.pop("/api/v1/namespaces/churn"), "namespace churn does not", "kubectl apply"),
    ("overlay", lambda t: t.pop(RUNTIME), "ServingRuntime churn-torchserve", "kubectl apply"),
    ("secrets", lambda t: t[SECRET]["data"].pop("online"), "churn-features/online", "docs/kubernetes.md"),
    ("model", not_ready, "churn-1: c: ImagePullBackOff: no such tag", "mend what the pod states"),
]


@pytest.mark.parametrize(("check", "harm", "detail", "remedy"), HARM, ids=[one[2] for one in HARM])
def test_each_fault_is_named_with_its_remedy(
    there: dict[str, Object],
    check: str,
    harm: Callable[[dict[str, Object]], object],
    detail: str,
    remedy: str,
) -> None:
    harm(there)
    found = CHECKS[check](there)
    assert found.state is State.BROKEN
    assert detail in found.detail
    assert remedy in found.remedy


def test_the_manifests_own_image_is_a_fault(there: dict[str, Object]) -> None:
    [container] = there[RUNTIME]["spec"]["containers"]
    container["image"] = "registry.example.com/churn-serve:1.0.0"
    assert "exists nowhere" in service.applied(there.get, CONFIG).detail


def test_what_may_not_be_read_is_a_warning(there: dict[str, Object]) -> None:
    def read(path: str) -> Object | None:
        if "/secrets/" in path:
            raise NotAllowed(f"this account may not GET {path}; run it as an administrator")
        return there.get(path)

    found = service.secrets(read, CONFIG)
    assert (found.state, "may not GET" in found.detail) == (State.WARNING, True)


def test_a_service_without_a_model_says_what_comes_next(there: dict[str, Object]) -> None:
    del there[SERVICE]["spec"]["predictor"]["model"]["storageUri"]
    found = service.model(there.get, CONFIG)
    assert (found.state, found.remedy) == (State.WARNING, "churn deploy")

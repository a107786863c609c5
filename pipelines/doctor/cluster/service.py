"""What an overlay of kserve/ and a person have made in the namespace of the model."""

from collections.abc import Iterator

from pipelines.doctor.check import Result, broken, ok, warning
from pipelines.doctor.cluster.objects import NotAllowed, Object, Read, namespaced
from rollout.config import KServeConfig
from rollout.targets.kserve.pods import trouble

SERVING = "serving.kserve.io"
PLACEHOLDER = "registry.example.com"
"""The registry in the manifests, which no company has."""
STORAGE = "churn-storage"
ACCOUNTS = ("churn-models", "churn-rollout")
PAGE = "docs/kubernetes.md"


def runtime_of(read: Read, config: KServeConfig) -> Object | None:
    path = namespaced(config.namespace, "servingruntimes", config.runtime, SERVING, "v1alpha1")
    return read(path)


def applied(read: Read, config: KServeConfig) -> Result:
    """The overlay: namespace, runtime with a company's own image, accounts."""
    if read(f"/api/v1/namespaces/{config.namespace}") is None:
        return broken(
            f"the namespace {config.namespace} does not exist",
            "kubectl apply --server-side -k YOUR_OVERLAY, or correct rollout.kserve.namespace",
        )
    runtime = runtime_of(read, config)
    if runtime is None:
        return broken(
            f"the ServingRuntime {config.runtime} is not in {config.namespace}",
            "kubectl apply --server-side -k YOUR_OVERLAY, or correct rollout.kserve.runtime",
        )
    [container] = [one for one in runtime["spec"]["containers"] if one["name"] == "kserve-container"]
    if container["image"].startswith(PLACEHOLDER):
        return broken(
            f"the image is {container['image']}, which exists nowhere",
            f"name yours in `images` of your overlay: {PAGE}",
        )
    missing = [
        name for name in ACCOUNTS if read(namespaced(config.namespace, "serviceaccounts", name)) is None
    ]
    role = read(namespaced(config.namespace, "rolebindings", "churn-rollout", "rbac.authorization.k8s.io"))
    if missing or role is None:
        what = ", ".join(missing) or "the RoleBinding churn-rollout"
        return broken(f"{what} is not in {config.namespace}", "kubectl apply --server-side -k YOUR_OVERLAY")
    return ok(f"{config.namespace}: runtime with {container['image']}, accounts and their Role")


def secrets(read: Read, config: KServeConfig) -> Result:
    """Each Secret and ConfigMap that pods and the controller cannot start without has its key."""
    runtime = runtime_of(read, config)
    if runtime is None:
        return warning("there is no ServingRuntime whose secrets could be checked", "see the check before")
    controller = read(namespaced(config.namespace, "deployments", "churn-rollout", "apps"))
    pods = [runtime["spec"], *([] if controller is None else [controller["spec"]["template"]["spec"]])]
    missing = []
    try:
        for plural, name, key in sorted({one for pod in pods for one in _needed(pod)}):
            found = read(namespaced(config.namespace, plural, name))
            if found is None or key not in found.get("data", {}):
                missing.append(f"{name}/{key}")
        storage = read(namespaced(config.namespace, "secrets", STORAGE))
    except NotAllowed as error:
        return warning(str(error).partition(";")[0], "run it as an administrator of the namespace")
    if missing:
        return broken(f"not in {config.namespace}: {', '.join(missing)}", f"make them: {PAGE}, Secrets")
    if storage is None:
        return warning(
            f"there is no Secret {STORAGE}: the initializer then needs an identity of the platform",
            f"{PAGE}, Secrets, or an annotation of the ServiceAccount churn-models",
        )
    return ok("every Secret and ConfigMap that a container needs has its key")


def _needed(pod: Object) -> Iterator[tuple[str, str, str]]:
    """Plural, name and key of what the containers' variables refer to and cannot do without."""
    kinds = {"secretKeyRef": "secrets", "configMapKeyRef": "configmaps"}
    for container in pod["containers"]:
        for variable in container.get("env", []):
            for kind, plural in kinds.items():
                reference = variable.get("valueFrom", {}).get(kind)
                if reference is not None and not reference.get("optional"):
                    yield plural, reference["name"], reference["key"]


def model(read: Read, config: KServeConfig) -> Result:
    """The InferenceService is ready; else a pod's own reason."""
    service = read(namespaced(config.namespace, "inferenceservices", config.name, SERVING, "v1beta1"))
    if service is None:
        return broken(
            f"the InferenceService {config.name} is not in {config.namespace}",
            "kubectl apply --server-side -k YOUR_OVERLAY, or correct rollout.kserve.name",
        )
    if not service["spec"]["predictor"].get("model", {}).get("storageUri"):
        return warning("no model is deployed yet", "churn deploy")
    conditions = {one["type"]: one for one in service.get("status", {}).get("conditions", [])}
    if conditions.get("Ready", {}).get("status") == "True":
        return ok(f"serves {service['spec']['predictor']['model']['storageUri']}")
    selector = f"labelSelector=serving.kserve.io/inferenceservice%3D{config.name}"
    pods = (read(f"/api/v1/namespaces/{config.namespace}/pods?{selector}") or {}).get("items", [])
    found = trouble(pods)
    reason = found.words if found else conditions.get("Ready", {}).get("message", "no reason is stated")
    return broken(f"not ready: {reason}", "mend what the pod states; churn rollout status has the rollout's")

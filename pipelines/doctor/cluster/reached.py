"""What a pod of the model reaches: its stores, tried from a pod; and who scrapes it."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from kubernetes.client import ApiClient

from core.errors import ServingError
from pipelines.doctor.check import Result, broken, ok, warning
from pipelines.doctor.cluster.objects import NotAllowed, Object, asked, namespaced
from pipelines.doctor.cluster.service import STORAGE, runtime_of
from rollout.config import RolloutConfig

POD_WITHIN_S = 90.0
"""For the image, which a node may have to fetch, and the attempts."""
LOOK_EVERY_S = 1.0
TRY = """
import json, os, socket
from urllib.parse import urlsplit
found = {}
addresses = {"CHURN_FEAST_ONLINE": 6379, "CHURN_FEAST_REGISTRY": 5432, "CHURN_PREDICTION_LOG_KAFKA": 9092,
             "CHURN_DOCTOR_STORE": 443}
# a value is a URL, host:port,password=... or host:port,host:port/topic
for name, port in addresses.items():
    value = os.environ.get(name)
    if not value:
        continue
    url = value if "://" in value else "x://" + value.split("/")[0].split(",")[0]
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port or port), 5).close()
        found[name] = ""
    except OSError as error:
        found[name] = str(error)
open("/dev/termination-log", "w").write(json.dumps(found))
"""
"""Runs in the pod. It writes names of variables and errors into the pod's status, which can be read without a
right to logs; never an address, which may contain a password."""
STORE = "CHURN_DOCTOR_STORE"
AWS = "https://s3.amazonaws.com"


def stores_from_a_pod(client: ApiClient, config: RolloutConfig, read: Callable[[str], Any]) -> Result:
    """Starts a pod with the runtime's image, account and variables, which connects to each store and ends."""
    runtime = runtime_of(read, config.kserve)
    if runtime is None:
        return warning("there is no ServingRuntime to start a pod with", "see the check `overlay`")
    name = f"churn-doctor-{uuid4().hex[:8]}"
    pods = f"/api/v1/namespaces/{config.kserve.namespace}/pods"
    try:
        asked(client, "POST", pods, _pod(name, runtime, config.kserve.name, _endpoint(config, read)))
    except NotAllowed:
        return warning("this account may not start a pod, so that nothing was tried from one",
                       "run it as an administrator of the namespace")  # fmt: skip
    try:
        found = _result(lambda path: asked(client, "GET", path), f"{pods}/{name}")
    finally:
        asked(client, "DELETE", f"{pods}/{name}")
    failed = {variable: reason for variable, reason in found.items() if reason}
    if failed:
        words = "; ".join(f"{variable}: {reason}" for variable, reason in failed.items())
        return broken(
            f"a pod does not reach {words}",
            "correct the address in the Secret, or add the port to the NetworkPolicy churn-predictor",
        )
    return ok(f"a pod reaches {', '.join(found) or 'everything: no store is named'}")


def _endpoint(config: RolloutConfig, read: Callable[[str], Any]) -> str:
    """URL of the store of models, as KServe's initializer derives it from the Secret; empty: not S3."""
    if not str(config.store).startswith("s3://"):
        return ""
    try:
        secret = read(namespaced(config.kserve.namespace, "secrets", STORAGE)) or {}
    except NotAllowed:
        secret = {}
    marks = secret.get("metadata", {}).get("annotations", {})
    endpoint = marks.get("serving.kserve.io/s3-endpoint")
    scheme = "http" if marks.get("serving.kserve.io/s3-usehttps") == "0" else "https"
    return f"{scheme}://{endpoint}" if endpoint else AWS


def _pod(name: str, runtime: Object, service: str, store: str) -> Object:
    [container] = [one for one in runtime["spec"]["containers"] if one["name"] == "kserve-container"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        # the label of the model's pods, so that their NetworkPolicy holds for it
        "metadata": {"name": name, "labels": {"serving.kserve.io/inferenceservice": service}},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": "churn-models",
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "doctor",
                    "image": container["image"],
                    "command": ["python", "-I", "-c", TRY],
                    "env": [*container.get("env", []), {"name": STORE, "value": store}],
                    "securityContext": container.get("securityContext", {}),
                    "resources": {
                        "requests": {"cpu": "50m", "memory": "64Mi"},
                        "limits": {"memory": "128Mi"},
                    },
                }
            ],
        },
    }


def _result(read: Callable[[str], Any], path: str) -> Mapping[str, str]:
    """Raises ServingError with the pod's own reason when it does not end in time."""
    deadline = time.monotonic() + POD_WITHIN_S
    while True:
        pod = read(path) or {}
        status = pod.get("status", {})
        [container] = status.get("containerStatuses") or [{}]
        state = container.get("state", {})
        if message := (state.get("terminated") or {}).get("message"):
            return dict(json.loads(message.strip().splitlines()[-1]))
        if time.monotonic() > deadline:
            waiting = (state.get("waiting") or {}).get("reason") or status.get("phase")
            raise ServingError(f"the pod {path.rpartition('/')[2]} has not ended: {waiting}; describe it")
        time.sleep(LOOK_EVERY_S)


def prometheus(config: RolloutConfig) -> Result:
    """Prometheus has samples of the model's pods with the labels by which the controller reads them."""
    from rollout.observers.prometheus import worker_selector
    from rollout.observers.series import PrometheusClient

    url = config.kserve.prometheus_url
    if url is None:
        return broken("rollout.kserve.prometheus_url is not set: no canary can be judged", "set it")
    client = PrometheusClient(url, config.kserve.prometheus)
    found = client.query(f"count by (job) ({worker_selector(config)})")
    if not found:
        return warning(
            f"{url} has no sample of {config.kserve.name} in {config.kserve.namespace} now",
            "deploy a model; then look at the ServiceMonitor and at rollout.kserve.prometheus.service_label",
        )
    jobs = sorted(one["metric"].get("job", "") for one in found)
    if len(jobs) > 1 and config.kserve.prometheus.job is None:
        return broken(
            f"{url} scrapes the pods by the jobs {', '.join(jobs)}: each request counts more than once",
            "name one in rollout.kserve.prometheus.job",
        )
    return ok(f"{url} scrapes the pods (job {', '.join(jobs)})")

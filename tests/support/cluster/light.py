"""A place of scenarios: a real cluster, with an overlay of kserve/ whose pods are small programs.

The InferenceService is that of the overlay, field by field. Of the ServingRuntime only program, probes and
size are others, so that a pod is ready in seconds and needs no store but that of models, from which KServe's
storage-initializer loads as always.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import yaml
from kubernetes.client import CustomObjectsApi
from kubernetes.client.exceptions import ApiException
from kubernetes.watch import Watch

from rollout.config import KServeConfig
from rollout.targets.kserve.cluster import HTTP_ROUTE, INFERENCE_SERVICE, REVISION, client_of, connect
from rollout.targets.kserve.knative import Knative
from rollout.targets.kserve.marks import SOURCE, mark
from rollout.targets.kserve.standard import Standard
from rollout.targets.target import Candidate
from support.cluster.addresses import Addresses
from support.cluster.inventory import done, found
from support.cluster.models import REPOSITORY
from support.cluster.namespaces import make_storage_secret, remove_namespace
from support.scenarios.file import KNATIVE_PODS, Scenario
from support.scenarios.state import SERVICE, Names, knative_split, route_split

PATIENCE_S = 150
"""An autoscaler looks every 15 s, and a node may be busy with other pods."""
REST_S = 2
"""After the expected state: what would change it comes within this time."""
MODELS = ("first", "second", "third")
LOST = "/tmp/lost"  # noqa: S108  of a pod
"""While it exists, the pod is not ready."""
PROGRAM = f"""
import http.server, os, signal, sys

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if os.path.exists({LOST!r}) else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words):
        pass

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if not os.path.isdir("/mnt/models"):
    sys.exit("there is no model: run `churn deploy`")
http.server.ThreadingHTTPServer(("", 8080), Ready).serve_forever()
"""


class Light:
    """Implements Place."""

    def __init__(self, folder: Path, to: Addresses, namespace: str, scenario: Scenario) -> None:
        self._folder, self._to, self._namespace = folder, to, namespace
        self._overlay(scenario.overlay)
        self.names = Names(
            {
                name: Candidate(f"{self._models}/{name}", digit * 64, digit * 12)
                for name, digit in zip((*MODELS, "missing"), "abce", strict=True)
            }
        )
        self.cluster = connect(None, namespace)
        kind: type[Knative | Standard] = Knative if scenario.mode == "knative" else Standard
        config = KServeConfig(name=SERVICE, namespace=namespace, timeout_s=PATIENCE_S)
        self.target = kind(config, self.cluster)
        self._splits: list[dict[str, int]] = []
        self._over = Event()
        self._watcher = Thread(target=self._watch, daemon=True)

    @property
    def _models(self) -> str:
        return f"{self._to.store}/{self._namespace}"

    def make(self) -> None:
        make_storage_secret(self._namespace, self._to)
        with self._bucket() as (store, bucket):
            for name in MODELS:
                store.put_object(Bucket=bucket, Key=f"{self._namespace}/{name}/model.txt", Body=name.encode())
        self._watcher.start()

    def remove(self) -> None:
        self._over.set()
        remove_namespace(self._namespace)
        with self._bucket() as (store, bucket):
            for name in MODELS:
                store.delete_object(Bucket=bucket, Key=f"{self._namespace}/{name}/model.txt")

    def apply(self) -> None:
        done("apply", "--server-side", "-k", str(self._folder))

    def lose(self, model: str) -> None:
        self._in_a_pod(model, "touch")

    def regain(self, model: str) -> None:
        self._in_a_pod(model, "rm")

    def _in_a_pod(self, model: str, word: str) -> None:
        """The same one each time: the oldest."""
        pods = found("pods", "-n", self._namespace, "-l", f"app=isvc.{self.names.workload(model)}")["items"]
        name = min((pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]) for pod in pods)[1]
        done("exec", name, "-n", self._namespace, "-c", "kserve-container", "--", word, LOST)

    def splits(self) -> list[dict[str, int]]:
        seen, self._splits = self._splits, []
        return seen

    def settle(self, same: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not same() and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(REST_S)

    def _overlay(self, overlay: str) -> None:
        name, _, tag = self._to.image.rpartition(":")
        scale = {"op": "replace", "path": "/spec/replicas", "value": 0}
        content: dict[str, Any] = {
            "resources": [os.path.relpath(REPOSITORY / "kserve" / "overlays" / overlay, self._folder)],
            "namespace": self._namespace,
            "images": [{"name": "registry.example.com/churn-serve", "newName": name, "newTag": tag}],
            "patches": [
                {"target": {"kind": "ServingRuntime"}, "patch": json.dumps(_runtime(overlay))},
                {"target": {"kind": "Deployment", "name": "churn-rollout"}, "patch": json.dumps([scale])},
            ],
        }
        if overlay.startswith("knative"):
            fewer = {"op": "replace", "path": "/spec/predictor/minReplicas", "value": KNATIVE_PODS}
            content["patches"].append({"target": {"kind": "InferenceService"}, "patch": json.dumps([fewer])})
        (self._folder / "kustomization.yaml").write_text(yaml.safe_dump(content))

    @contextmanager
    def _bucket(self) -> Iterator[tuple[Any, str]]:
        import boto3  # of the extra loopback, which collecting the tests does not need
        from botocore.config import Config as S3Config

        aws = self._to.aws
        store = boto3.client(
            "s3", endpoint_url=aws["AWS_ENDPOINT_URL"], aws_access_key_id=aws["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=aws["AWS_SECRET_ACCESS_KEY"], region_name=aws["AWS_DEFAULT_REGION"],
            config=S3Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )  # fmt: skip
        yield store, self._to.store.removeprefix("s3://")

    def _watch(self) -> None:
        """Every version of what says where requests go, in the order in which they were stored."""
        kind = HTTP_ROUTE if self.target.name == "standard" else INFERENCE_SERVICE
        api, version = CustomObjectsApi(client_of(None)), "0"
        place = (kind.group, kind.version, self._namespace, kind.plural)
        while not self._over.is_set():
            watch = Watch()
            with suppress(ApiException):  # a busy API server: from the last version on
                for event in watch.stream(
                    api.list_namespaced_custom_object, *place, resource_version=version, timeout_seconds=5
                ):
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["object"]["metadata"]["name"] == SERVICE and event["type"] != "DELETED":
                        self._splits.append(self._split(event["object"]))

    def _split(self, version: Any) -> dict[str, int]:
        if self.target.name == "standard":
            return route_split(version, self.names)
        status = ((version.get("status") or {}).get("components") or {}).get("predictor") or {}
        models = {}
        for part in status.get("traffic") or []:
            revision = self.cluster.get(REVISION, part["revisionName"])
            models[part["revisionName"]] = self.names.of_address(mark(revision["metadata"], SOURCE))
        return knative_split(status, models)


def _runtime(overlay: str) -> list[dict[str, Any]]:
    """The patch of the ServingRuntime."""
    container = "/spec/containers/0"
    standing = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    patch: list[dict[str, Any]] = [
        {"op": "add", "path": f"{container}/command", "value": ["python", "-I", "-c", PROGRAM]},
        {"op": "replace", "path": f"{container}/env", "value": []},
        {"op": "replace", "path": f"{container}/readinessProbe", "value": standing},
        {"op": "remove", "path": f"{container}/livenessProbe"},
        {"op": "replace", "path": f"{container}/resources",
         "value": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}}},
    ]  # fmt: skip
    if overlay.startswith("standard"):
        patch += [{"op": "remove", "path": f"{container}/{name}"} for name in ("startupProbe", "lifecycle")]
    return patch


@contextmanager
def light(folder: Path, to: Addresses, namespace: str, scenario: Scenario) -> Iterator[Light]:
    """Its namespace has models and their secret; the overlay is not applied yet. It leaves nothing behind."""
    place = Light(folder, to, namespace, scenario)
    done("create", "namespace", namespace)
    try:
        place.make()
        yield place
    finally:
        place.remove()

"""A cluster for tests: API server, one of KServe's two modes, and an InferenceService that serves already."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import ApiClient, Configuration

from rollout.config import KServeConfig
from rollout.targets.kserve.cluster import Cluster
from rollout.targets.target import Candidate
from support.kube import knative, standard
from support.kube.api_server import ApiServer, Object

REPOSITORY = Path(__file__).resolve().parents[3]
CRDS = Path(os.environ.get("CHURN_KSERVE_CRDS", REPOSITORY.parent / "shared" / "kserve-crds"))
DOCUMENTED = REPOSITORY.parent / "shared" / "kserve-manifests"

FIRST = Candidate("s3://models/churn/v1", "a" * 64, "aaaaaaaaaaaa")
SECOND = Candidate("s3://models/churn/v2", "b" * 64, "bbbbbbbbbbbb")
THIRD = Candidate("s3://models/churn/v3", "c" * 64, "cccccccccccc")


@cache
def crd(plural: str) -> Object | None:
    """The schema of the whole object by KServe's full CRD; None where the files are not here.

    They lie in the folder that CHURN_KSERVE_CRDS names, or beside the repository in shared/.
    """
    file = CRDS / f"serving.kserve.io_{plural}.yaml"
    if not file.is_file():
        return None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506  safe, and in C
    schema: Object = content["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return int_or_string(schema)


def int_or_string(schema: Any) -> Any:
    """JSON Schema has no word for it: without a type the value may be either."""
    if isinstance(schema, list):
        return [int_or_string(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string") is True:
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    return {key: int_or_string(part) for key, part in schema.items()}


def service(mode: str, name: str = "churn", marked: bool = True) -> Object:
    """What an overlay of kserve/ has applied: the first model at 100 %."""
    annotations = {
        "churn.rollout/archive": FIRST.archive,
        "churn.rollout/sha256": FIRST.sha256,
        "churn.rollout/model-version": FIRST.version,
    }
    predictor: Object = {
        "serviceAccountName": "churn-s3",
        "minReplicas": 4,
        "maxReplicas": 8,
        "timeout": 30,
        "model": {
            "modelFormat": {"name": "pytorch"},
            "runtime": "churn-torchserve",
            "protocolVersion": "v1",
            "storageUri": FIRST.archive,
        },
    }
    if marked:
        predictor["annotations"] = annotations
    meta: Object = {
        "name": name,
        "annotations": {"serving.kserve.io/deploymentMode": mode},
    }
    if mode == "Standard":
        predictor["name"] = "v1"
    else:
        meta["annotations"]["serving.kserve.io/enable-tag-routing"] = "true"
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": meta,
        "spec": {"predictor": predictor},
    }


@contextmanager
def cluster(
    controller: knative.Knative | standard.Standard, content: Object | None = None, schemas: bool = True
) -> Iterator[ApiServer]:
    """With `content` (by default: of the controller's mode) applied and settled."""
    kind = "Knative" if isinstance(controller, knative.Knative) else "Standard"
    schema = crd("inferenceservices") if schemas else None
    admit = knative.admit if kind == "Knative" else standard.admit
    with ApiServer(
        controllers=[controller],
        schemas={"inferenceservices": schema} if schema else {},
        admission={"inferenceservices": admit},
    ) as server:
        applied = content or service(kind)
        applied["metadata"]["namespace"] = "churn"
        server.store.put("serving.kserve.io", "inferenceservices", applied)
        server.settle()
        server.calls.clear()
        yield server


def client(server: ApiServer) -> Cluster:
    """Ours, with waits of milliseconds."""
    configuration = Configuration(host=server.url)
    configuration.retries = False
    return Cluster(ApiClient(configuration), "churn", sleep=lambda s: time.sleep(min(s, 0.005)))


def config(timeout_s: float = 3.0) -> KServeConfig:
    return KServeConfig(name="churn", namespace="churn", timeout_s=timeout_s)


def found(server: ApiServer) -> Object:
    """The InferenceService now."""
    content = server.store.get("serving.kserve.io", "inferenceservices", "churn", "churn")
    assert content is not None
    return content

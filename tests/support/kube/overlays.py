"""The InferenceService of an overlay of kserve/, as `kubectl kustomize` renders it."""

import copy
import shutil
import subprocess
from functools import cache

import pytest
import yaml

from support.kube.api_server import Object
from support.kube.cluster import REPOSITORY


def inference_service(overlay: str) -> Object:
    return copy.deepcopy(_rendered(overlay))


@cache
def _rendered(overlay: str) -> Object:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    folder = REPOSITORY / "kserve" / "overlays" / overlay
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = [one for one in yaml.safe_load_all(done.stdout) if one["kind"] == "InferenceService"]
    return dict(found)

"""A model's metadata in Open Inference Protocol v2, from its archive. TorchServe does not answer them."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from core.errors import ServingError

SERVER: Mapping[str, Any] = {"name": "churn", "version": "1", "extensions": ["binary_tensor_data"]}
"""The answer to GET /v2. The extension is Triton's: tensors as raw bytes after the JSON."""


def model_metadata(archive: Path | IO[bytes], model: str) -> dict[str, Any]:
    """The answer to GET /v2/models/<model>. Raises ServingError when `archive` has no bundle."""
    bundle = read_bundle(archive)
    datatype = "INT64" if bundle["entity"]["id_type"] == "integer" else "BYTES"

    def tensor(name: str, kind: str) -> Mapping[str, Any]:
        return {"name": name, "datatype": kind, "shape": [-1]}

    return {
        "name": model,
        "versions": [bundle["model_version"]],
        "platform": "pytorch_torchserve",
        "inputs": [tensor("user_id", datatype)],
        "outputs": [
            tensor("churn_probability", "FP64"),
            tensor("prediction", "BYTES"),
            tensor("threshold", "FP64"),
            tensor("status", "BYTES"),
            tensor("user_id", datatype),
        ],
        # the features that a request in the native format or in v1 may override
        "parameters": {"features": {one["name"]: one["dtype"] for one in bundle["spec"]["features"]}},
    }


def read_bundle(archive: Path | IO[bytes]) -> dict[str, Any]:
    """bundle.json of the archive. Raises ServingError when it is missing or incomplete."""
    try:
        with zipfile.ZipFile(archive) as content:
            bundle = json.loads(content.read("bundle.json"))
        bundle["entity"]["id_type"], bundle["model_version"], bundle["spec"]["features"]
    except OSError as error:
        raise ServingError(f"{archive}: {error.strerror}; package a model first") from None
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError):
        raise ServingError(f"{archive}: not a model archive; package the model again") from None
    return dict(bundle)

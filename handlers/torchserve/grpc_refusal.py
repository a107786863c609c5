"""Refuses a request that arrived at TorchServe's own gRPC server for Open Inference.

TorchServe 0.12 builds a ModelInfer answer from our JSON whatever its status. If a key of v2 is missing, it
ends the worker with all waiting requests (GRPCJob.response). A refusal is therefore an answer without a
model, whose id is `refused STATUS REASON`; the gateway converts it to a gRPC error
(configs/gateway/grpc_answer.lua).
"""

import json
from collections.abc import Mapping
from typing import Any

LONGEST = 500


def is_open_inference(row: Mapping[str, Any]) -> bool:
    """Whether TorchServe made the body from a ModelInfer request: it adds `model_name` to each of them."""
    body = row.get("body", b"")
    return isinstance(body, bytes | bytearray) and b'"model_name"' in body


def refused(http_status: int, body: bytes) -> bytes:
    """The JSON body of a refusal, as an answer without a model."""
    reason = str(json.loads(body).get("error", "refused"))[:LONGEST]
    return json.dumps(
        {"id": f"refused {http_status} {reason}", "model_name": "", "model_version": "", "outputs": []}
    ).encode()

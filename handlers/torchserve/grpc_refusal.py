"""How a request over Open Inference gRPC is refused.

TorchServe 0.12 builds a ModelInfer answer from our JSON whatever its status; where a key of v2 is missing,
it ends the worker with all that waits (GRPCJob.response). A refusal is therefore an answer without a model,
whose id is `refused STATUS REASON`; the gateway makes a gRPC error of it (configs/gateway/grpc_answer.lua).
"""

import json
from collections.abc import Mapping
from typing import Any

LONGEST = 500


def is_open_inference(row: Mapping[str, Any]) -> bool:
    """TorchServe puts `model_name` into each body that it makes of a ModelInfer request."""
    body = row.get("body", b"")
    return isinstance(body, bytes | bytearray) and b'"model_name"' in body


def refused(http_status: int, body: bytes) -> bytes:
    """The handler's JSON refusal in that shape."""
    reason = str(json.loads(body).get("error", "refused"))[:LONGEST]
    return json.dumps(
        {"id": f"refused {http_status} {reason}", "model_name": "", "model_version": "", "outputs": []}
    ).encode()

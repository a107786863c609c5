"""The answers that the gateway itself gives over gRPC, as protobuf: about server and model in Open Inference
Protocol (open_inference_grpc.proto), to TorchServe's Ping, and of grpc.health.v1.
"""

from collections.abc import Mapping
from typing import Any

from handlers.protobuf import put_bytes, put_integers, put_text, put_varint

SERVING, NOT_SERVING = 1, 2
"""grpc.health.v1.HealthCheckResponse.ServingStatus."""


def flag(value: bool) -> bytes:
    """ServerLiveResponse, ServerReadyResponse and ModelReadyResponse: proto3 omits false."""
    return put_varint(1 << 3) + put_varint(1) if value else b""


def health(status: int) -> bytes:
    return put_varint(1 << 3) + put_varint(status)


def server_metadata(server: Mapping[str, Any]) -> bytes:
    """ServerMetadataResponse; `server`: the answer of GET /v2."""
    extensions = b"".join(put_bytes(3, name.encode()) for name in server["extensions"])
    return put_text(1, server["name"]) + put_text(2, server["version"]) + extensions


def model_metadata(model: Mapping[str, Any]) -> bytes:
    """ModelMetadataResponse; `model`: the answer of GET /v2/models/<model>."""
    return b"".join(
        (
            put_text(1, model["name"]),
            *(put_text(2, version) for version in model["versions"]),
            put_text(3, model["platform"]),
            *(put_bytes(4, _tensor(tensor)) for tensor in model["inputs"]),
            *(put_bytes(5, _tensor(tensor)) for tensor in model["outputs"]),
        )
    )


def ping() -> bytes:
    """TorchServeHealthResponse with TorchServe's own text."""
    return put_text(1, '{\n  "status": "Healthy"\n}\n')


def _tensor(tensor: Mapping[str, Any]) -> bytes:
    return put_text(1, tensor["name"]) + put_text(2, tensor["datatype"]) + put_integers(3, tensor["shape"])

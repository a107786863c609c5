"""The file in which a running server states its addresses and state; `serving.client.running` reads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.workspace import Workspace
from serving.gateway.process import Gateway
from serving.torchserve.server import TorchServe


def record_file(files: Workspace) -> Path:
    return files.serving / "server.json"


def server_record(gateway: Gateway, model: TorchServe) -> Mapping[str, Any]:
    """Addresses and files of both processes; no token and no key."""
    tls = gateway.config.tls
    tls_files = {
        "tls_certificate": gateway.certificate,
        "tls_client_certificate": tls.client_certificate,
        "tls_client_key": tls.client_key,
    }
    return {
        **(model.record() if model.alive else {"model": model.model_name, "archive": str(model.archive)}),
        "torchserve_pid": model.pid,
        "gateway": gateway.url,
        "gateway_metrics": gateway.metrics,
        "gateway_pid": gateway.pid,
        "gateway_admin": str(gateway.admin.socket),
        "inference": gateway.url,
        **{name: str(file.absolute()) for name, file in tls_files.items() if file is not None},
    }

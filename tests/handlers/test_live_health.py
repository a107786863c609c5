"""A real TorchServe without its feature store stays ready, and reports that it is degraded."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from handlers.identity import PROBE_ID
from serving.config import ServingConfig
from serving.torchserve.server import TorchServe
from serving.torchserve.tokens import Tokens
from support.served_bundle import ServedBundle, files_of


def health(server: TorchServe) -> dict[str, Any]:
    """The state of a worker from the management API."""
    answer = httpx.get(
        f"{server.management}/models/{server.model_name}",
        params={"customized": "true"},
        headers=Tokens.headers(server.tokens.management),
        timeout=30,
        trust_env=False,
    )
    [described] = answer.json()
    return dict(described["customizedMetadata"])


def predict(server: TorchServe, user_id: int | str) -> httpx.Response:
    return httpx.post(
        f"{server.inference}/v1/models/{server.model_name}:predict",
        json={"instances": [{"user_id": user_id}]},
        headers=Tokens.headers(server.tokens.inference),
        timeout=30,
        trust_env=False,
    )


def test_a_worker_is_ready_without_its_store(bundle: ServedBundle, tmp_path: Path) -> None:
    database = tmp_path / "online.db"
    database.write_bytes(Path(bundle.environment["CHURN_FEAST_ONLINE"]).read_bytes())
    environment = bundle.environment | {"CHURN_FEAST_ONLINE": str(database)}
    with TorchServe(ServingConfig(), bundle.archive, environment, files_of(tmp_path)) as server:
        assert predict(server, 1).json()["predictions"][0]["status"] == "ok"
        assert health(server)["degraded"] is False
        database.unlink()
        began = time.monotonic()
        while time.monotonic() - began < 3:
            assert predict(server, PROBE_ID).status_code == 200
            [answer] = predict(server, 1).json()["predictions"]
            assert answer["status"] == "degraded"
            alive = httpx.get(
                f"{server.inference}/ping",
                headers=Tokens.headers(server.tokens.inference),
                trust_env=False,
            )
            assert alive.json()["status"] == "Healthy"
        assert predict(server, 2).status_code == 503
        found = health(server)
        assert [found[name] for name in ("live", "ready", "degraded")] == [True, True, True]
        assert found["store"]["healthy"] is False


@pytest.mark.parametrize("body", [b'{"user_id": 1}', b""])
def test_a_header_of_a_client_is_no_command(body: bytes) -> None:
    """Only TorchServe's own command has the header and no body."""
    import struct

    from handlers.churn_handler import is_description
    from handlers.torchserve.batch_message import WorkerRequest

    block = b"".join(struct.pack("!i", len(part)) + part for part in (b"describe", b"True"))
    assert is_description(WorkerRequest(b"id", block, {}))
    assert not is_description(WorkerRequest(b"id", block, {"body": body}))
    assert not is_description(WorkerRequest(b"id", block[:-4] + b"Fals", {}))

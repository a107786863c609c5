"""A supervised server as `churn serve` runs it: gateway, TorchServe, and the regular ticks."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from core.workspace import Workspace
from serving.config import GatewayConfig, ServingConfig
from serving.gateway.keys import Keys, first_key
from serving.gateway.process import Gateway
from serving.gateway.tls import own_client
from serving.record import record_file
from serving.supervisor import Companion, Servers, Supervisor
from serving.torchserve.server import TorchServe
from support.served_bundle import ServedBundle, files_of

TICK_S = 0.1


@dataclass
class Stack:
    supervisor: Supervisor
    files: Workspace
    keys: Keys
    key: str

    @property
    def url(self) -> str:
        return self.supervisor.gateway.url

    @property
    def headers(self) -> dict[str, str]:
        return {"x-api-key": self.key}

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        request["headers"] = {**self.headers, **request.get("headers", {})}
        certificate = self.supervisor.gateway.certificate
        trusted = own_client({} if certificate is None else {"tls_certificate": str(certificate)})
        return httpx.request(method, self.url + path, timeout=30, trust_env=False, verify=trusted, **request)

    def post(self, path: str, **request: Any) -> httpx.Response:
        return self.ask("POST", path, **request)


def supervisor_of(
    bundle: ServedBundle,
    folder: Path,
    gateway: GatewayConfig | None = None,
    serving: ServingConfig | None = None,
    environment: Mapping[str, str] | None = None,
    newest: Callable[[], Path] | None = None,
    objective_ms: float = 250.0,
    canary: Mapping[str, str] | None = None,
    companion: Companion | None = None,
) -> Stack:
    """Not started yet. `environment` is added to the bundle's, and `canary` to that for the canary alone.

    `newest` is the archive to serve, by default the bundle's.
    """
    gateway, serving = gateway or GatewayConfig(), serving or ServingConfig()
    files, variables = files_of(folder), {**bundle.environment, **(environment or {})}
    keys = Keys(files.api_keys)
    if gateway.keys:
        first_key(keys, files.api_key, datetime.now(UTC))

    def maker(more: Mapping[str, str]) -> Callable[[Path, str], TorchServe]:
        return lambda archive, name: TorchServe(serving, archive, {**variables, **more}, files, name)

    servers = Servers(newest or (lambda: bundle.archive), maker({}), maker(canary or {}))
    supervisor = Supervisor(
        Gateway(gateway, serving, files, record_file(files), objective_ms), servers, keys, files, companion
    )
    return Stack(supervisor, files, keys, files.api_key.read_text().strip() if gateway.keys else "")


@contextmanager
def ticking(supervisor: Supervisor) -> Iterator[None]:
    """What `churn serve` does while it waits."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(TICK_S):
            supervisor.tick(datetime.now(UTC))

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()

"""When a started TorchServe can answer, or why it never will."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from core.errors import ServingError
from serving.torchserve.tokens import Tokens

LOOK_EVERY_S = 0.1
REFUSED = re.compile(r"REFUSED (.*)")  # what handlers/churn_handler.py writes before it gives up
WORKER_DIED = re.compile(r"Backend worker process died|Failed to load model|Load model failed")
EXCEPTION = re.compile(r"^\S*Z \S+ - ((?:\w+\.)*\w*(?:Error|Exception|Warning|Exit)\b.*)", re.MULTILINE)
PORT_TAKEN = re.compile(r"Address already in use|Failed to bind")


class PortTaken(ServingError):
    """Another process took a port between our look and TorchServe's start."""


@dataclass(frozen=True)
class Logs:
    """What this start wrote to its logs: the files live on from start to start."""

    folder: Path
    begins: dict[str, int]

    @classmethod
    def from_now(cls, folder: Path) -> "Logs":
        return cls(folder, {file.name: file.stat().st_size for file in folder.glob("*.log")})

    def text(self, name: str) -> str:
        file = self.folder / name
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return ""
        begin = self.begins.get(name, 0)
        return content[begin if begin <= len(content) else 0 :].decode(errors="replace")


def wait_for_workers(
    management: str,
    token: str,
    model: str,
    workers: int,
    alive: Callable[[], bool],
    logs: Logs,
    timeout_s: float,
) -> None:
    """Return when `workers` workers are READY: `/ping` says Healthy long before, and after they died.

    Raises PortTaken, or ServingError with the reason that the worker or the server gave.
    """
    deadline = time.monotonic() + timeout_s
    with httpx.Client(
        base_url=management, timeout=5.0, trust_env=False, headers=Tokens.headers(token)
    ) as client:
        while time.monotonic() < deadline:
            running = alive()
            if running and _ready_workers(client, model) >= workers:
                return
            if reason := _failure(logs, running):
                raise ServingError(f"{model}: the worker does not start: {reason} (logs: {logs.folder})")
            if not running:
                raise death(logs)
            time.sleep(LOOK_EVERY_S)
    raise ServingError(
        f"{model}: not ready within {timeout_s:g} s; raise serving.start_timeout_s or see {logs.folder}"
    )


def _ready_workers(client: httpx.Client, model: str) -> int:
    try:
        answer = client.get(f"/models/{model}")
    except httpx.TransportError:
        return 0
    if answer.status_code != 200:
        return 0
    return sum(worker["status"] == "READY" for worker in answer.json()[0]["workers"])


def _failure(logs: Logs, running: bool) -> str | None:
    """The last useful line of a worker that gave up."""
    worker = logs.text("worker.log")
    if refused := REFUSED.findall(worker):
        return str(refused[-1])
    if running and not WORKER_DIED.search(worker + logs.text("server.log")):
        return None
    # a handler that cannot be imported is looked for among TorchServe's own, and that failure comes last
    exceptions = [line for line in EXCEPTION.findall(worker) if "'ts.torch_handler." not in line]
    return str(exceptions[-1]) if exceptions else None


def death(logs: Logs) -> ServingError:
    said = logs.text("jvm.log") + logs.text("server.log")
    if PORT_TAKEN.search(said):
        return PortTaken("a port that TorchServe needs was taken while it started; start again")
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith(("\t", "WARNING:"))]
    return ServingError(
        f"TorchServe ended at its start: {lines[-1] if lines else 'no output'} (logs: {logs.folder})"
    )

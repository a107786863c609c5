"""Waits until a TorchServe that was started can answer, or finds the reason why it cannot."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.errors import ServingError
from serving.torchserve.management import ManagementApi

CHECK_INTERVAL_S = 0.1
REFUSED = re.compile(r"REFUSED (.*)")
"""The line that handlers/churn_handler.py writes before it ends its worker."""
WORKER_DIED = re.compile(r"Backend worker process died|Failed to load model|Load model failed")
EXCEPTION = re.compile(r"^\S*Z \S+ - ((?:\w+\.)*\w*(?:Error|Exception|Warning|Exit)\b.*)", re.MULTILINE)
PORT_TAKEN = re.compile(r"Address already in use|Failed to bind")


class PortTaken(ServingError):
    """Another process took a port after `choose_ports` had found it free."""


@dataclass(frozen=True)
class Logs:
    """What one start of TorchServe wrote to its logs. The files are appended to by each start."""

    folder: Path
    begins: dict[str, int]
    """Name of a file -> its size before this start."""

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
    management: ManagementApi, workers: int, alive: Callable[[], bool], logs: Logs, timeout_s: float
) -> None:
    """Return when `workers` workers are ready. `/ping` is no sign: it reports "Healthy" before they are ready
    and after they died.

    Raises PortTaken, or ServingError with the reason that the worker or the server wrote to its log.
    """
    model, deadline = management.model, time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        running = alive()
        if running and management.ready_workers() >= workers:
            return
        if reason := _failure(logs, running):
            raise ServingError(f"{model}: the worker does not start: {reason} (logs: {logs.folder})")
        if not running:
            raise error_at_start(logs)
        time.sleep(CHECK_INTERVAL_S)
    raise ServingError(
        f"{model}: not ready within {timeout_s:g} s; raise serving.start_timeout_s or see {logs.folder}"
    )


def _failure(logs: Logs, running: bool) -> str | None:
    """The last useful line of a worker that ended."""
    worker = logs.text("worker.log")
    if refused := REFUSED.findall(worker):
        return str(refused[-1])
    if running and not WORKER_DIED.search(worker + logs.text("server.log")):
        return None
    # after the error of a handler that cannot be imported, TorchServe logs that its own handlers lack it
    exceptions = [line for line in EXCEPTION.findall(worker) if "'ts.torch_handler." not in line]
    return str(exceptions[-1]) if exceptions else None


def error_at_start(logs: Logs) -> ServingError:
    """The error for a TorchServe that ended; PortTaken when that was the reason."""
    text = logs.text("jvm.log") + logs.text("server.log")
    if PORT_TAKEN.search(text):
        return PortTaken("a port that TorchServe needs was taken while it started; start again")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("\t", "WARNING:"))]
    return ServingError(
        f"TorchServe ended at its start: {lines[-1] if lines else 'no output'} (logs: {logs.folder})"
    )

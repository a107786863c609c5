"""Runs the dashboard of Optuna or MLflow on this machine during a `with` block."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from core.errors import ServingError
from serving.addresses import LOOPBACK, free_port
from serving.environment import DASHBOARD, passed_on
from serving.process.owned import OwnedProcess
from serving.process.running import ServerProcess

POLL_S = 0.2
HOST = LOOPBACK
"""The dashboards have no authentication, so they listen on this machine only."""


@dataclass(frozen=True)
class Server:
    """How one dashboard is started."""

    name: str
    command: Sequence[str]
    """Without the port, which is the last argument."""
    ready_path: str
    """A path that returns 200 when the dashboard is ready."""
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Name -> text of private files in the scratch folder, whose path replaces `{scratch}` in the command."""
    start_timeout_s: float = 120.0


def optuna_dashboard(storage: str, artifacts: Path) -> Server:
    """The dashboard of the studies in `storage`, with the files of their trials."""
    artifacts.mkdir(parents=True, exist_ok=True)
    # in a private file: an address may contain a password, and all users can see a command line
    config = f"[optuna_dashboard]\nstorage = {json.dumps(storage)}\n"
    program = "from optuna_dashboard._cli import main; main()"
    return Server(
        name="Optuna's dashboard",
        command=(
            *(sys.executable, "-P", "-c", program, "--from-config", "{scratch}/dashboard.toml"),
            # the other server of the dashboard leaves a control socket in the home folder
            *("--server", "wsgiref", "--artifact-dir", str(artifacts), "--host", HOST, "--port"),
        ),
        ready_path="/dashboard/",
        files={"dashboard.toml": config},
    )


def mlflow_server(tracking_uri: str, artifacts_uri: str) -> Server:
    """The server of the runs and models in `tracking_uri`. Raises ServingError if that is a server."""
    if tracking_uri.startswith(("http://", "https://")):
        raise ServingError(f"training.tracking_uri is a server already: open {tracking_uri}")
    return Server(
        name="MLflow",
        command=(
            *(sys.executable, "-P", "-m", "mlflow", "server", "--workers", "1"),
            *("--artifacts-destination", artifacts_uri, "--host", HOST, "--port"),
        ),
        ready_path="/version",
        environment={
            "MLFLOW_BACKEND_STORE_URI": tracking_uri,
            # eight processes of 200 MB for functions that are not used
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
    )


class Dashboard(ServerProcess):
    """Starts `server` on `port` (0: the system chooses); `url` answers during the `with` block.

    When the block or this process ends in any way, the server and its processes end too. Raises ServingError
    if the port is in use, or if the server does not start, with the last line of its log.
    """

    url: str
    pid: int

    def __init__(self, server: Server, port: int, log: Path) -> None:
        self._server, self._port, self._log = server, port, log

    def __enter__(self) -> Self:
        port = free_port(self._port, "--port", HOST)
        self.url = f"http://{HOST}:{port}"
        begin = self._log.stat().st_size if self._log.exists() else 0
        self._process = process = OwnedProcess("churn-dashboard-")
        try:
            for name, text in self._server.files.items():
                (process.scratch / name).write_text(text, encoding="utf-8")
            command = [
                word.replace("{scratch}", str(process.scratch)) for word in (*self._server.command, str(port))
            ]
            process.start(command, self._log, {**passed_on(DASHBOARD), **self._server.environment})
            self.pid = process.pid
            self._wait(begin)
        except BaseException:
            self.stop()
            raise
        return self

    def _wait(self, begin: int) -> None:
        deadline = time.monotonic() + self._server.start_timeout_s
        with httpx.Client(timeout=5.0, trust_env=False) as client:
            while time.monotonic() < deadline:
                if not self.alive:
                    lines = self._log.read_bytes()[begin:].decode(errors="replace").strip().splitlines()
                    last = lines[-1] if lines else "no output"
                    raise ServingError(f"{self._server.name} ended at its start: {last} (log: {self._log})")
                try:
                    if client.get(self.url + self._server.ready_path).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(POLL_S)
        raise ServingError(
            f"{self._server.name}: no answer within {self._server.start_timeout_s:g} s; see {self._log}"
        )

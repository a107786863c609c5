"""The dashboards of Optuna and MLflow on this machine, for as long as a `with` block lasts."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from core.errors import ServingError
from serving.addresses import LOOPBACK, free_port
from serving.environment import DASHBOARD, passed_on
from serving.process.owned import OwnedProcess

LOOK_EVERY_S = 0.2
HOST = LOOPBACK
"""Neither dashboard asks who is there, so neither listens beyond this machine."""


@dataclass(frozen=True)
class Server:
    """How one dashboard is started."""

    name: str
    command: Sequence[str]
    """Without the port, which comes last."""
    answers: str
    """A path that gives 200 once the dashboard can be used."""
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Name -> text of private files in the scratch folder; `{scratch}` in the command stands for it."""
    start_timeout_s: float = 120.0


def optuna_dashboard(storage: str, artifacts: Path) -> Server:
    """Studies in `storage`, with the files of their trials."""
    artifacts.mkdir(parents=True, exist_ok=True)
    # in a file of ours alone, since an address may hold a password and a command line is for all to see
    config = f"[optuna_dashboard]\nstorage = {json.dumps(storage)}\n"
    program = "from optuna_dashboard._cli import main; main()"
    return Server(
        name="Optuna's dashboard",
        command=(
            *(sys.executable, "-P", "-c", program, "--from-config", "{scratch}/dashboard.toml"),
            # its other server leaves a control socket in the home folder
            *("--server", "wsgiref", "--artifact-dir", str(artifacts), "--host", HOST, "--port"),
        ),
        answers="/dashboard/",
        files={"dashboard.toml": config},
    )


def mlflow_server(tracking_uri: str, artifacts_uri: str) -> Server:
    """Runs and registered models in `tracking_uri`. Raises ServingError where that is a server already."""
    if tracking_uri.startswith(("http://", "https://")):
        raise ServingError(f"training.tracking_uri is a server already: open {tracking_uri}")
    return Server(
        name="MLflow",
        command=(
            *(sys.executable, "-P", "-m", "mlflow", "server", "--workers", "1"),
            *("--artifacts-destination", artifacts_uri, "--host", HOST, "--port"),
        ),
        answers="/version",
        environment={
            "MLFLOW_BACKEND_STORE_URI": tracking_uri,
            # eight processes of 200 MB that serve nothing which we use
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
    )


class Dashboard:
    """Starts `server` on `port` (0: the system chooses); inside the `with` block `url` answers.

    Whatever ends the block or this process, the server and all that it started end too. Raises ServingError
    when the port is taken or the server does not start, with its last words.
    """

    url: str
    pid: int

    def __init__(self, server: Server, port: int, log: Path) -> None:
        self._server, self._port, self._log = server, port, log
        self._process: OwnedProcess | None = None

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    def stop(self) -> None:
        """End the server and everything it started; done when this returns."""
        if self._process is not None:
            self._process.stop()

    def _wait(self, begin: int) -> None:
        deadline = time.monotonic() + self._server.start_timeout_s
        with httpx.Client(timeout=5.0, trust_env=False) as client:
            while time.monotonic() < deadline:
                if not self.alive:
                    said = self._log.read_bytes()[begin:].decode(errors="replace").strip().splitlines()
                    last = said[-1] if said else "no output"
                    raise ServingError(f"{self._server.name} ended at its start: {last} (log: {self._log})")
                try:
                    if client.get(self.url + self._server.answers).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(LOOK_EVERY_S)
        raise ServingError(
            f"{self._server.name}: no answer within {self._server.start_timeout_s:g} s; see {self._log}"
        )

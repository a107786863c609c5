"""The dashboards of Optuna and MLflow on this machine, for as long as a `with` block lasts."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from data.errors import ServingError
from serving.torchserve import KEEPER, STOP_TIMEOUT_S

LOOK_EVERY_S = 0.2
HOST = "127.0.0.1"
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
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        port = _free(self._port)
        self.url = f"http://{HOST}:{port}"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        begin = self._log.stat().st_size if self._log.exists() else 0
        scratch = Path(tempfile.mkdtemp(prefix="churn-dashboard-"))  # ours alone: mode 0700
        try:
            for name, text in self._server.files.items():
                (scratch / name).write_text(text, encoding="utf-8")
            self._launch(port, scratch)
            self._wait(begin)
        except BaseException:
            self.stop()
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        return self._keeper is not None and self._keeper.poll() is None

    def stop(self) -> None:
        """End the server and everything it started; done when this returns."""
        if self._keeper is None:
            return
        keeper, self._keeper = self._keeper, None
        for pipe in (keeper.stdin, keeper.stdout):
            if pipe is not None:
                pipe.close()  # the closed pipe is what tells the keeper
        try:
            keeper.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()

    def _launch(self, port: int, scratch: Path) -> None:
        command = [word.replace("{scratch}", str(scratch)) for word in (*self._server.command, str(port))]
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(KEEPER), str(self._log), str(scratch), "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=scratch,
            env={**os.environ, **self._server.environment},
            start_new_session=True,  # Ctrl-C in the terminal is for us; we stop the server
        )
        assert self._keeper.stdout is not None
        self.pid = int(self._keeper.stdout.readline() or 0)

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


def _free(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ServingError(
                f"--port {port}: {error.strerror}; stop what listens there or leave --port out"
            ) from None
        return int(probe.getsockname()[1])

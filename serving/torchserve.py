"""TorchServe on this machine, for as long as a `with` block lasts."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from data.errors import ServingError
from data.workspace import Workspace, write_atomically
from serving.config import ServingConfig
from serving.java import find_java
from serving.properties import TEMPLATES, choose_ports, properties
from serving.readiness import Logs, PortTaken, wait_for_workers

KEEPER = Path(__file__).with_name("keeper.py")
STARTS = 3
STOP_TIMEOUT_S = 15
NOT_INHERITED = {
    # of the caller's shell: each would change what the server or its workers load, or how they start
    *("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "JAVA_TOOL_OPTIONS"),
    *("LOCAL_RANK", "RANK", "WORLD_SIZE"),
}


class TorchServe:
    """Starts TorchServe with one archive; inside the `with` block its workers are ready.

    Whatever ends the block or this process (an exception, a signal, kill -9), the server and its workers end
    too. Raises ServingError when the server or its worker does not start, with the reason in one line.
    """

    inference: str
    management: str
    metrics: str
    pid: int

    def __init__(
        self, config: ServingConfig, archive: Path, environment: Mapping[str, str], files: Workspace
    ) -> None:
        self._config = config
        self._archive = archive.absolute()
        self._environment = environment
        self._files = files
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        java = find_java()
        for start in range(1, STARTS + 1):
            try:
                self._start(java)
                return self
            except PortTaken:
                if start == STARTS:
                    raise
        raise AssertionError("unreachable")

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
            keeper.kill()  # takes the JVM with it, and the workers end with their JVM
            keeper.wait()

    def _start(self, java: Path) -> None:
        ports = choose_ports(self._config)
        host = self._config.host
        self.inference = f"http://{host}:{ports.inference}"
        self.management = f"http://127.0.0.1:{ports.management}"
        self.metrics = f"http://127.0.0.1:{ports.metrics}"
        log_folder = self._files.serving / "logs"
        log_folder.mkdir(parents=True, exist_ok=True)
        record = self._files.serving / "server.json"
        logs = Logs.from_now(log_folder)
        with ExitStack() as undo:
            # short: the workers' sockets lie in it, and a socket's path may have 107 characters
            scratch = Path(tempfile.mkdtemp(prefix="churn-ts-"))
            undo.callback(shutil.rmtree, scratch, ignore_errors=True)
            (scratch / "config.properties").write_text(
                properties(self._config, ports, self._archive), encoding="ascii"
            )
            undo.callback(self.stop)
            self._launch(java, scratch, record, log_folder)
            wait_for_workers(
                self.management,
                self._config.model_name,
                self._config.workers,
                lambda: self.alive,
                logs,
                self._config.start_timeout_s,
            )
            write_atomically(record, json.dumps(self._record(), indent=2) + "\n")
            undo.pop_all()  # from here on the keeper removes the scratch folder and the record

    def _launch(self, java: Path, scratch: Path, record: Path, log_folder: Path) -> None:
        command = [
            *(str(java), f"-Xmx{self._config.heap}", f"-Djava.io.tmpdir={scratch}"),
            f"-Dlog4j.configurationFile=file://{TEMPLATES / 'log4j2.xml'}",
            f"-Dmodel_server_home={_torchserve_home()}",
            *("-cp", str(_torchserve_home() / "ts" / "frontend" / "*"), "org.pytorch.serve.ModelServer"),
            *("--python", sys.executable, "-f", str(scratch / "config.properties")),
            *("-s", str(self._archive.parent), "-ncs"),
        ]
        keeper = [sys.executable, "-I", "-S", str(KEEPER)]
        self._keeper = subprocess.Popen(
            [*keeper, str(log_folder / "jvm.log"), str(scratch), str(record), "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=scratch,
            env=self._worker_environment(java, scratch, log_folder),
            start_new_session=True,  # Ctrl-C in the terminal is for us; we stop the server
        )
        told: IO[bytes] = self._keeper.stdout  # type: ignore[assignment]
        self.pid = int(told.readline() or 0)

    def _worker_environment(self, java: Path, scratch: Path, log_folder: Path) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in NOT_INHERITED and not name.startswith("TS_")
        }
        return {
            **inherited,
            "CHURN_MAX_INSTANCES": str(self._config.max_instances),
            "OMP_NUM_THREADS": "1",
            "JAVA_HOME": str(java.parent.parent),
            "TMPDIR": str(scratch),
            "TEMP": str(scratch),
            "LOG_LOCATION": str(log_folder),
            "METRICS_LOCATION": str(log_folder),
            **self._environment,
        }

    def _record(self) -> dict[str, str | int]:
        return {
            "inference": self.inference,
            "management": self.management,
            "metrics": self.metrics,
            "pid": self.pid,
            "model": self._config.model_name,
            "archive": str(self._archive),
        }


def _torchserve_home() -> Path:
    found = find_spec("ts")
    if found is None or found.origin is None:
        raise ServingError("TorchServe is not installed: pip install torchserve")
    return Path(found.origin).parent.parent

"""TorchServe on this machine, for as long as a `with` block lasts."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from core.errors import ServingError
from core.workspace import Workspace, write_atomically
from serving.archive import Archive, ModelArchive, Reader, read_archive
from serving.config import ServingConfig, Tracing
from serving.environment import WORKER, passed_on
from serving.process.owned import OwnedProcess
from serving.torchserve.java import find_java
from serving.torchserve.properties import TEMPLATES, choose_ports, properties
from serving.torchserve.readiness import Logs, PortTaken, death, wait_for_workers
from serving.torchserve.tokens import Tokens, wait_for_tokens

STARTS = 3


@dataclass(frozen=True)
class Upstream:
    """Where a gateway finds one TorchServe, and the token that it must add."""

    inference_port: int
    grpc_port: int
    token: str = field(repr=False)


class TorchServe:
    """Starts TorchServe with one archive; inside the `with` block its workers are ready.

    Whatever ends the block or this process (an exception, a signal, kill -9), the server and its workers end
    too. Raises ServingError when the server or its worker does not start, with the reason in one line, and
    what `read` raises of an archive that must not be served. What is loaded is a private copy of the bytes
    that `read` gave. `name` is part of the file names of its record and logs, since two servers may share
    a workspace.
    """

    inference: str
    management: str
    metrics: str
    pid: int
    tokens: Tokens
    upstream: Upstream

    def __init__(
        self,
        config: ServingConfig,
        archive: Archive,
        environment: Mapping[str, str],
        files: Workspace,
        name: str = "server",
        read: Reader = read_archive,
    ) -> None:
        self._read = read
        self._loaded = archive if isinstance(archive, ModelArchive) else None
        self.archive = archive.path if isinstance(archive, ModelArchive) else archive.absolute()
        """Where the archive came from."""
        self.model_name = config.model_name
        self._config = config
        self._environment = environment
        self._record_file = files.serving / f"{name}.json"
        self.log_folder = files.serving / "logs" / ("" if name == "server" else name)
        self._process: OwnedProcess | None = None

    def __enter__(self) -> Self:
        java, archive = find_java(), self.load()
        for start in range(1, STARTS + 1):
            try:
                self._start(java, archive)
                return self
            except PortTaken:
                if start == STARTS:
                    raise
        raise AssertionError("unreachable")

    def load(self) -> ModelArchive:
        """The bytes that this server serves, read once. Raises what `read` raises."""
        if self._loaded is None:
            self._loaded = self._read(self.archive)
        return self._loaded

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    def stop(self) -> None:
        """End the server and everything it started; done when this returns. Requests on their way are cut:
        see serving/supervisor.py for what comes before it.
        """
        if self._process is not None:
            self._process.stop()

    def _start(self, java: Path, archive: ModelArchive) -> None:
        ports, version = choose_ports(self._config), archive.version
        self.inference = f"http://127.0.0.1:{ports.inference}"
        self.management = f"http://127.0.0.1:{ports.management}"
        self.metrics = f"http://127.0.0.1:{ports.metrics}"
        logs = Logs.from_now(self.log_folder)
        # short: the workers' sockets lie in it, and a socket's path may have 107 characters
        self._process = process = OwnedProcess("churn-ts-", remove=[self._record_file])
        try:
            copy = archive.copy_into(process.scratch / "model-store")
            text = properties(self._config, ports, copy, version)
            (process.scratch / "config.properties").write_text(text, encoding="ascii")
            process.start(
                self._command(java, process.scratch),
                self.log_folder / "jvm.log",
                self._worker_environment(java, process.scratch),
            )
            self.pid = process.pid
            tokens = wait_for_tokens(process.scratch / "key_file.json", lambda: self.alive)
            if tokens is None:
                raise death(logs)
            self.tokens = tokens
            self.upstream = Upstream(ports.inference, ports.grpc_inference, tokens.inference)
            wait_for_workers(
                self.management,
                tokens.management,
                self._config.model_name,
                self._config.workers,
                lambda: self.alive,
                logs,
                self._config.start_timeout_s,
            )
            write_atomically(self._record_file, json.dumps(self.record(), indent=2) + "\n")
        except BaseException:
            self.stop()
            raise

    def _command(self, java: Path, scratch: Path) -> list[str]:
        return [
            *(str(java), f"-Xmx{self._config.heap}", f"-Djava.io.tmpdir={scratch}"),
            f"-Djava.util.concurrent.ForkJoinPool.common.parallelism={self._config.jvm_parallelism}",
            f"-Dlog4j.configurationFile=file://{TEMPLATES / 'log4j2.xml'}",
            f"-Dmodel_server_home={_torchserve_home()}",
            *("-cp", str(_torchserve_home() / "ts" / "frontend" / "*"), "org.pytorch.serve.ModelServer"),
            *("--python", sys.executable, "-f", str(scratch / "config.properties")),
            *("-s", str(scratch / "model-store"), "-ncs"),
        ]

    def _worker_environment(self, java: Path, scratch: Path) -> dict[str, str]:
        return {
            **passed_on((*WORKER, *self._config.pass_environment)),
            "CHURN_MAX_INSTANCES": str(self._config.max_instances),
            "CHURN_MAX_REQUEST_BYTES": str(self._config.max_request_bytes),
            "CHURN_MAX_EXPLAINED": str(self._config.max_explained),
            "CHURN_BATCH_ROWS": str(self._config.batch_rows),
            **_tracing(self._config.tracing),
            "OMP_NUM_THREADS": "1",
            "JAVA_HOME": str(java.parent.parent),
            "TMPDIR": str(scratch),
            "TEMP": str(scratch),
            "LOG_LOCATION": str(self.log_folder),
            "METRICS_LOCATION": str(self.log_folder),
            **self._environment,
        }

    def record(self) -> dict[str, str | int]:
        """What others may know of it: addresses, no token."""
        assert self._process is not None
        return {
            "inference": self.inference,
            "management": self.management,
            "metrics": self.metrics,
            "pid": self.pid,
            "model": self._config.model_name,
            "archive": str(self.archive),
            "archive_sha256": self.load().sha256,
            "key_file": str(self._process.scratch / "key_file.json"),
        }


def _tracing(config: Tracing) -> dict[str, str]:
    if config.endpoint is None:
        return {}
    return {"CHURN_OTEL_ENDPOINT": config.endpoint, "CHURN_OTEL_RATIO": str(config.sample_ratio)}


def _torchserve_home() -> Path:
    found = find_spec("ts")
    if found is None or found.origin is None:
        raise ServingError("TorchServe is not installed: pip install torchserve")
    return Path(found.origin).parent.parent

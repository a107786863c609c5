"""One TorchServe on this machine, which runs during a `with` block."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from core.workspace import Workspace, write_atomically
from serving.addresses import base_url
from serving.archive import Archive, ModelArchive, Reader, read_archive
from serving.config import ServingConfig
from serving.process.owned import OwnedProcess
from serving.process.running import ServerProcess
from serving.torchserve.command import command, worker_environment
from serving.torchserve.java import find_java
from serving.torchserve.management import ManagementApi
from serving.torchserve.properties import choose_ports, properties
from serving.torchserve.readiness import Logs, PortTaken, error_at_start, wait_for_workers
from serving.torchserve.tokens import Tokens, wait_for_tokens
from serving.torchserve.upstream import Upstream

ATTEMPTS = 3
"""Starts, with other ports each time, when another process takes one of the ports."""


class TorchServe(ServerProcess):
    """Starts TorchServe with one archive. Inside the `with` block its workers are ready.

    However the block or this process ends (an exception, a signal, kill -9), the server and its workers end
    too. TorchServe loads a private copy of the bytes that `read` returned.

    Raises ServingError, with the reason in one line, when the server or its worker does not start, and what
    `read` raises for an archive that must not be served.
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
        """`environment`: variables for the workers of this server. `name`: a part of the names of its record
        and logs, because two servers may run in one workspace.
        """
        self._read = read
        self._loaded = archive if isinstance(archive, ModelArchive) else None
        self.archive = archive.path if isinstance(archive, ModelArchive) else archive.absolute()
        """The file from which the archive was read."""
        self.model_name = config.model_name
        self._config = config
        self._environment = environment
        self._record_file = files.serving / f"{name}.json"
        self.log_folder = files.serving / "logs" / ("" if name == "server" else name)

    def __enter__(self) -> Self:
        java, archive = find_java(), self.load()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._start(java, archive)
                return self
            except PortTaken:
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def load(self) -> ModelArchive:
        """The bytes that this server serves, read once. Raises what `read` raises."""
        if self._loaded is None:
            self._loaded = self._read(self.archive)
        return self._loaded

    def waiting_requests(self) -> int:
        """How many requests wait for a worker; 0 when TorchServe does not answer."""
        return self._api.waiting_requests()

    def _start(self, java: Path, archive: ModelArchive) -> None:
        config, ports = self._config, choose_ports(self._config)
        self.inference = base_url(ports.inference)
        self.management = base_url(ports.management)
        self.metrics = base_url(ports.metrics)
        logs = Logs.from_now(self.log_folder)
        # a short name: the scratch folder contains the workers' sockets, whose paths may have 107 characters
        self._process = process = OwnedProcess("churn-ts-", remove=[self._record_file])
        scratch = process.scratch
        try:
            copy = archive.copy_into(scratch / "model-store")
            text = properties(config, ports, copy, archive.version)
            (scratch / "config.properties").write_text(text, encoding="ascii")
            process.start(
                command(config, java, scratch),
                self.log_folder / "jvm.log",
                {**worker_environment(config, java, scratch, self.log_folder), **self._environment},
            )
            self.pid = process.pid
            tokens = wait_for_tokens(scratch / "key_file.json", lambda: self.alive)
            if tokens is None:
                raise error_at_start(logs)
            self.tokens = tokens
            self.upstream = Upstream(ports.inference, ports.grpc_inference, tokens.inference)
            self._api = ManagementApi(ports.management, tokens.management, self.model_name)
            wait_for_workers(self._api, config.workers, lambda: self.alive, logs, config.start_timeout_s)
            write_atomically(self._record_file, json.dumps(self.record(), indent=2) + "\n")
        except BaseException:
            self.stop()
            raise

    def record(self) -> dict[str, str | int]:
        """Addresses and files of this server, for other processes; no token."""
        assert self._process is not None
        return {
            "inference": self.inference,
            "management": self.management,
            "metrics": self.metrics,
            "pid": self.pid,
            "model": self.model_name,
            "archive": str(self.archive),
            "archive_sha256": self.load().sha256,
            "key_file": str(self._process.scratch / "key_file.json"),
        }

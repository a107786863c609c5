"""Real Redis servers in the ways that production has them: TLS, users, sentinels, a cluster."""

import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis
from redis.exceptions import RedisError

from support.servers.tls_files import TlsFiles
from support.waits import free_port, within

REDIS = shutil.which("redis-server")
SLOTS = 16_384


def free_ports(count: int) -> list[int]:
    """Ports that a cluster's bus can follow, 10,000 above."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            if (port := probe.getsockname()[1]) < 55_000:
                found.append(port)
    return found


@dataclass
class RedisServer:
    """A redis-server on one port of loopback, that `start` and `stop` (a kill) may follow each other on."""

    port: int
    folder: Path
    options: Sequence[str] = ("--save", "")
    process: "psutil.Popen | None" = None

    @property
    def online(self) -> dict[str, Any]:
        """Feast's `online_store`."""
        return {"type": "redis", "connection_string": f"127.0.0.1:{self.port}"}

    def start(self) -> None:
        self.process = _launched(self.folder, "--port", str(self.port), *self.options)
        with Redis(port=self.port) as client:
            within(20, client.ping, ignored=RedisError)

    def stop(self) -> None:
        if self.process is not None:
            _kill(self.process)
        self.process = None


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(free_port(), folder, options or ("--save", ""))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _launched(folder: Path, *arguments: str) -> psutil.Popen:
    if REDIS is None:
        pytest.skip("redis-server is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    command = [REDIS, *arguments, "--bind", "127.0.0.1", "--dir", str(folder)]
    return psutil.Popen(command, stdout=subprocess.DEVNULL)


def _kill(process: psutil.Popen) -> None:
    with suppress(psutil.NoSuchProcess):  # a test has killed it
        process.kill()
    process.wait()


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[psutil.Popen]:
    """A redis-server with these arguments, killed at the end of the block."""
    process = _launched(folder, *arguments)
    try:
        yield process
    finally:
        _kill(process)


@contextmanager
def plain_redis(folder: Path, port: int, *arguments: str) -> Iterator[psutil.Popen]:
    with started(folder, "--port", str(port), "--save", "", *arguments) as process:
        with Redis(port=port) as client:
            within(30, client.ping, ignored=RedisError)
        yield process


@contextmanager
def tls_redis(folder: Path, files: TlsFiles) -> Iterator[int]:
    """The port of a server that speaks TLS alone, and only with clients that have a certificate."""
    [port] = free_ports(1)
    tls = {"tls-cert-file": files.certificate, "tls-key-file": files.key, "tls-ca-cert-file": files.ca}
    options = [part for name, file in tls.items() for part in (f"--{name}", str(file))]
    with started(folder, "--port", "0", "--tls-port", str(port), "--save", "", *options):
        with Redis(
            port=port,
            ssl=True,
            ssl_ca_certs=str(files.ca),
            ssl_certfile=str(files.certificate),
            ssl_keyfile=str(files.key),
        ) as client:
            within(30, client.ping, ignored=RedisError)
        yield port


@dataclass
class Sentinels:
    master: psutil.Popen
    ports: Sequence[int]
    """Of master and replica."""
    sentinel: int
    """Its port."""


@contextmanager
def sentinels(folder: Path, password: str, sentinel_password: str) -> Iterator[Sentinels]:
    """A master, a replica of it, and a sentinel that moves on 300 ms after the master is gone."""
    one, other, watching = free_ports(3)
    secret = ("--requirepass", password, "--masterauth", password)
    with ExitStack() as stack:
        master = stack.enter_context(started(folder / "one", "--port", str(one), "--save", "", *secret))
        replica_of = ("--replicaof", f"127.0.0.1 {one}", "--repl-diskless-sync-delay", "0")
        stack.enter_context(
            started(folder / "other", "--port", str(other), "--save", "", *secret, *replica_of)
        )
        with Redis(port=one, password=password) as client:
            within(30, lambda: client.info("replication")["connected_slaves"], ignored=RedisError)
        config = folder / "sentinel" / "sentinel.conf"
        config.parent.mkdir(parents=True)
        config.write_text(
            f"port {watching}\nrequirepass {sentinel_password}\nsentinel monitor churn 127.0.0.1 {one} 1\n"
            f"sentinel auth-pass churn {password}\nsentinel down-after-milliseconds churn 300\n"
            "sentinel failover-timeout churn 2000\n"
        )
        stack.enter_context(started(config.parent, str(config), "--sentinel"))
        with Redis(port=watching, password=sentinel_password) as client:
            within(30, lambda: client.sentinel_slaves("churn"), ignored=RedisError)
        yield Sentinels(master, (one, other), watching)


@dataclass
class RedisCluster:
    ports: Sequence[int]

    def client(self, number: int) -> "Redis[bytes]":
        return Redis(port=self.ports[number])

    def identity(self, number: int) -> str:
        return self.client(number).execute_command("CLUSTER MYID").decode()  # type: ignore[no-any-return]


@contextmanager
def cluster(folder: Path) -> Iterator[RedisCluster]:
    """Three masters, each with a third of the slots."""
    ports = free_ports(3)
    with ExitStack() as stack:
        for port in ports:
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "500")
            stack.enter_context(plain_redis(folder / str(port), port, *options))
        made = RedisCluster(ports)
        edges = [SLOTS * part // 3 for part in range(4)]
        for number, (first, after) in enumerate(pairwise(edges)):
            made.client(number).execute_command("CLUSTER ADDSLOTSRANGE", first, after - 1)
            made.client(0).execute_command("CLUSTER MEET", "127.0.0.1", ports[number])
        for number in range(3):
            within(30, lambda number=number: _is_whole(made.client(number)), ignored=RedisError)
        yield made


def _is_whole(client: "Redis[bytes]") -> bool:
    state = client.execute_command("CLUSTER INFO")
    return state["cluster_state"] == "ok" and state["cluster_known_nodes"] == "3"

"""Real Redis servers in the ways that production has them: TLS, users, sentinels, a cluster."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from support.servers.online_stores import REDIS
from support.servers.tls_files import TlsFiles

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


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A redis-server with these arguments, ended at the end."""
    if not REDIS.exists():
        pytest.skip(f"{REDIS} is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(REDIS), *arguments, "--bind", "127.0.0.1", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(happened: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What `happened` returns once it is true; RedisErrors do not count."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := happened():
                return found
        except RedisError:
            pass
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@contextmanager
def plain_redis(folder: Path, port: int, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    with started(folder, "--port", str(port), "--save", "", *arguments) as process:
        with Redis(port=port) as client:
            until(client.ping)
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
            until(client.ping)
        yield port


@dataclass
class Sentinels:
    master: "subprocess.Popen[bytes]"
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
            until(lambda: client.info("replication")["connected_slaves"])
        config = folder / "sentinel" / "sentinel.conf"
        config.parent.mkdir(parents=True)
        config.write_text(
            f"port {watching}\nrequirepass {sentinel_password}\nsentinel monitor churn 127.0.0.1 {one} 1\n"
            f"sentinel auth-pass churn {password}\nsentinel down-after-milliseconds churn 300\n"
            "sentinel failover-timeout churn 2000\n"
        )
        stack.enter_context(started(config.parent, str(config), "--sentinel"))
        with Redis(port=watching, password=sentinel_password) as client:
            until(lambda: client.sentinel_slaves("churn"))
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
            until(lambda number=number: _is_whole(made.client(number)))
        yield made


def _is_whole(client: "Redis[bytes]") -> bool:
    state = client.execute_command("CLUSTER INFO")
    return state["cluster_state"] == "ok" and state["cluster_known_nodes"] == "3"

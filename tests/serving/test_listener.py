"""When the gateway closes, all connected clients get an answer, also those not accepted yet."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.errors import ServingError
from serving.addresses import hold_port
from serving.config import GatewayConfig, ServingConfig
from serving.gateway.process import Gateway
from serving.process.listener import Row, not_accepted, refuse_newcomers, rows
from support.served_bundle import files_of
from support.waits import within

REQUEST = b"GET /v2/health/live HTTP/1.1\r\nHost: churn\r\n\r\n"
# accepts no connection until a line is read from standard input, then answers all waiting clients
SERVER = """
import socket, sys
listener = socket.socket(int(sys.argv[2]))
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, int(sys.argv[3]))
listener.bind((sys.argv[1], 0))
listener.listen(16)
print(listener.getsockname()[1], flush=True)
sys.stdin.readline()
while True:
    connection, _ = listener.accept()
    connection.sendall(connection.recv(100).upper())
"""
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000007 00:00000000 00000000     0        0 4711 1 0
   1: 0100007F:1F90 0100007F:C350 03 00000000:00000000 01:00000064 00000000     0        0 0 1 0
   2: 0100007F:1F90 0100007F:C351 01 00000000:00000021 00:00000000 00000000     0        0 4712 1 0
"""


@pytest.fixture(params=["127.0.0.1", "::1"])
def host(request: pytest.FixtureRequest) -> str:
    try:
        hold_port(0, "", request.param).close()
    except ServingError:
        pytest.skip(f"no {request.param} here")
    return str(request.param)


@contextmanager
def server(host: str, defer_accept_s: int = 0) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, host, str(int(family)), str(defer_accept_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def go_on(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go on\n")
    process.stdin.flush()


def connected(host: str, port: int) -> bool:
    """Whether the kernel completes the handshake of a new connection."""
    try:
        socket.create_connection((host, port), timeout=10).close()
    except ConnectionRefusedError:
        return False
    return True


def test_new_connections_are_refused_and_waiting_ones_are_served(host: str) -> None:
    with server(host) as (process, port):
        early = [socket.create_connection((host, port), timeout=10) for _ in range(3)]
        early[0].sendall(b"sent before")
        assert not_accepted(process.pid, port) == 3
        refuse_newcomers(process.pid, port)
        assert not connected(host, port)
        for client in early[1:]:
            client.sendall(b"sent after")
        assert not_accepted(process.pid, port) == 3
        go_on(process)
        assert [client.recv(100) for client in early] == [b"SENT BEFORE", b"SENT AFTER", b"SENT AFTER"]
        within(5, lambda: not_accepted(process.pid, port) == 0)
        for client in early:
            client.close()


def test_a_handshake_that_has_begun_is_completed(host: str) -> None:
    """With TCP_DEFER_ACCEPT the kernel does not complete the handshake until the client has sent data."""
    with server(host, defer_accept_s=10) as (process, port):
        client = socket.create_connection((host, port), timeout=10)
        assert not_accepted(process.pid, port) == 1
        refuse_newcomers(process.pid, port)
        assert not connected(host, port)
        client.sendall(b"completed")
        go_on(process)
        assert client.recv(100) == b"COMPLETED"
        client.close()


def test_the_kernel_s_table_of_sockets_is_parsed() -> None:
    found = list(rows(TABLE))
    assert found[0] == Row(8080, 0x0A, 7, 4711)
    # seven connections wait to be accepted, one is in its handshake, one is accepted
    assert [row.clients for row in found] == [7, 1, 0]


def test_a_process_that_does_not_listen_there() -> None:
    with pytest.raises(OSError, match="does not listen on port 1"):
        refuse_newcomers(os.getpid(), 1)


def test_a_held_port_refuses_connections() -> None:
    """Otherwise a client could connect between two servers, and its connection would be cut."""
    with hold_port(0, "") as held, pytest.raises(ConnectionRefusedError):
        socket.create_connection(held.getsockname())


def test_the_gateway_answers_all_connections_from_before_it_closed(host: str, tmp_path: Path) -> None:
    with gateway(host, tmp_path) as ours:
        port = int(ours.url.rpartition(":")[2])
        os.kill(ours.pid, signal.SIGSTOP)  # it accepts no connection, as on an overloaded machine
        early = [socket.create_connection((host, port), timeout=10) for _ in range(20)]
        for client in early:
            client.sendall(REQUEST)
        closing = threading.Thread(target=ours.connections.close)
        closing.start()
        within(5, lambda: not connected(host, port))
        os.kill(ours.pid, signal.SIGCONT)
        closing.join()
        for client in early:
            assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
            client.close()
        assert not connected(host, port)
        assert ours.connections.wait_until_quiet(10)


def test_a_client_with_an_open_connection_sends_one_more_request(tmp_path: Path) -> None:
    with gateway("127.0.0.1", tmp_path) as ours:
        port = int(ours.url.rpartition(":")[2])
        asking, silent = (socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(2))
        for client in (asking, silent):
            client.sendall(REQUEST)
            assert b"connection: close" not in client.recv(4096)
        ours.connections.close()
        quiet: list[bool] = []
        waiting = threading.Thread(target=lambda: quiet.append(ours.connections.wait_until_quiet(10)))
        waiting.start()
        time.sleep(0.5)
        asking.sendall(REQUEST)
        assert b"connection: close" in asking.recv(4096)
        began = time.monotonic()
        waiting.join()
        assert quiet == [True]
        assert 0.5 < time.monotonic() - began < 5, "a pause of one second is waited for, not the silent one"
        for client in (asking, silent):
            client.close()


def test_the_gateway_closes_also_when_the_system_refuses_the_duplicate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("serving.process.listener.PIDFD_GETFD", 100_000)
    with gateway("127.0.0.1", tmp_path) as ours, caplog.at_level(logging.INFO, "churn.gateway"):
        ours.connections.close()
        assert "may be cut: [Errno 38] pidfd_getfd: Function not implemented" in caplog.text
        assert not connected("127.0.0.1", int(ours.url.rpartition(":")[2]))
        assert ours.connections.wait_until_quiet(10)


@contextmanager
def gateway(host: str, folder: Path) -> Iterator[Gateway]:
    """Without a TorchServe; Envoy itself answers."""
    with Gateway(GatewayConfig(keys=False, host=host), ServingConfig(), files_of(folder)) as ours:
        yield ours

"""Small HTTP servers that answer with their name, in the slots of a gateway: for what Envoy alone decides."""

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from handlers.identity import PROBE_ID
from serving.config import GatewayConfig, ServingConfig
from serving.gateway.keys import Key
from serving.gateway.process import Gateway
from serving.torchserve.upstream import Upstream
from support.served_bundle import files_of
from support.waits import within


@dataclass
class Answering:
    """One upstream. `status` and `delay_s` are for customers; Envoy's own questions are always answered."""

    name: str
    status: int = 200
    delay_s: float = 0.0
    seen: list[dict[str, str]] = field(default_factory=list)
    """Headers of the requests of customers."""
    connections: list[Any] = field(default_factory=list)
    _server: Any = None

    @property
    def upstream(self) -> Upstream:
        port = int(self._server.server_address[1])
        return Upstream(port, port, f"token-of-{self.name}")

    def start(self) -> None:
        one = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize, disable_nagle_algorithm = -1, True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                status = 200
                if PROBE_ID.encode() not in body:
                    one.seen.append({name.lower(): value for name, value in self.headers.items()})
                    time.sleep(one.delay_s)
                    status = one.status
                answer = json.dumps({"who": one.name}).encode()
                self.send_response(status)
                if "x-churn-rpc" in self.headers:  # as the handler answers: one message in its frame
                    answer = struct.pack(">BI", 0, len(answer)) + answer if status == 200 else b""
                    self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def process_request(self, request: Any, client_address: Any) -> None:
                one.connections.append(request)
                super().process_request(request, client_address)

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # Envoy closes connections as it likes

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def die(self) -> None:
        """Like a process that was killed: the port is closed, and so is every connection."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@dataclass
class Split:
    gateway: Gateway
    stable: Answering
    canary: Answering
    client: httpx.Client
    log: Path

    def who(self, user: object, path: str = "/predictions/churn", body: Any = None, **headers: str) -> str:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.client.post(path, json={"user_id": user} if body is None else body, headers=named)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["who"])

    def of_the_canary(self, users: range = range(200)) -> set[int]:
        return {user for user in users if self.who(user) == "canary"}


@contextmanager
def split(
    folder: Path, config: GatewayConfig | None = None, keys: tuple[Key, ...] = (), api_key: str = ""
) -> Iterator[Split]:
    """A gateway before a stable and a canary upstream; its client sends `api_key`."""
    files = files_of(folder)
    stable, canary = Answering("stable"), Answering("canary")
    with ExitStack() as stack:
        for upstream in (stable, canary):
            upstream.start()
            stack.callback(upstream.die)
        gateway = stack.enter_context(Gateway(config or GatewayConfig(keys=False), ServingConfig(), files))
        gateway.serve({}, keys)
        gateway.set_upstream("stable", stable.upstream)
        gateway.set_upstream("canary", canary.upstream)
        client = stack.enter_context(httpx.Client(base_url=gateway.url, trust_env=False, timeout=20))
        if keys:
            client.headers["x-api-key"] = api_key
        made = Split(gateway, stable, canary, client, files.serving / "logs" / "gateway.log")
        _wait_until_bodies_are_read(made)
        yield made


def _wait_until_bodies_are_read(made: Split) -> None:
    """Envoy loads a new route file some time after it was written, and only then reads identifiers."""
    made.gateway.set_canary_weight(50)
    within(
        10,
        lambda: all(len({made.who(user) for _ in range(12)}) == 1 for user in range(3)),
        ignored=AssertionError,
    )
    made.gateway.set_canary_weight(0)
    made.stable.seen.clear(), made.canary.seen.clear()

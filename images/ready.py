"""GET /readyz, which Kubernetes asks for: whether the check of healthy.py passes.

In process 1, because a probe that runs a command starts Python for each look: processor time that autoscalers
take for load, and more seconds where a node is full.
"""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

LISTEN = "0.0.0.0:8083"
"""Of the variable CHURN_READY_LISTEN."""
PATH = "/readyz"
AT_MOST_EVERY_S = 1.0
"""Whoever asks more often gets the last answer: the check makes a prediction."""
READ_WITHIN_S = 5.0


class Check:
    """`passes`, called by one thread at a time."""

    def __init__(self, passes: Callable[[], bool]) -> None:
        self._passes = passes
        self._lock = threading.Lock()
        self._passed, self._until = False, 0.0

    def __call__(self) -> bool:
        with self._lock:
            if time.monotonic() >= self._until:
                self._passed = self._passes()
                self._until = time.monotonic() + AT_MOST_EVERY_S
            return self._passed


class Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """The caller has gone. Each line of the container is an object, and this would be none."""


def listen(host: str, port: int, passes: Callable[[], bool]) -> Server:
    """Answer 200 or 503 from now on. Raises OSError where the address is in use."""
    check = Check(passes)

    class Handler(BaseHTTPRequestHandler):
        timeout = READ_WITHIN_S

        def do_GET(self) -> None:
            known = self.path == PATH
            self.send_response_only((200 if check() else 503) if known else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = Server((host, port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server

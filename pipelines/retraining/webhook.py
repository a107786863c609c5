"""A small HTTP server whose only effect is to wake the governor.

Alertmanager sends an alert again after a restart, may send it after it was resolved, and its body may be
anything. So a request carries no decision: its body is not read beyond its length, and any number of requests
leads to one wake-up after the one that is under way.
"""

import hmac
import logging
import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from core.errors import ChurnError, ConfigError
from core.private_file import read_private

log = logging.getLogger("churn.retraining")

LARGEST_BODY = 1_000_000
SHORTEST_TOKEN = 16


def load_token(file: Path | None, variable: str) -> str:
    """The token from a private file, else from the environment.

    Raises ConfigError when there is none, when it is short, or when other users may read the file.
    """
    text = os.environ.get(variable) if file is None else read_private(file, "token", ConfigError)
    if text is None:
        raise ConfigError(f"--token-file: give a file of mode 600 with a token, or export {variable}")
    token = text.strip()
    if len(token) < SHORTEST_TOKEN or not token.isascii():
        raise ConfigError(f"the token of the webhook: give {SHORTEST_TOKEN} or more ASCII characters")
    return token


class Webhook:
    """Answers during the `with` block, which yields the URL.

    `work` runs in one thread, once for any number of requests that arrive before it begins, and returns a
    line to report.
    """

    def __init__(
        self, host: str, port: int, token: str, work: Callable[[], str], report: Callable[[str], object]
    ) -> None:
        self._asked, self._over = threading.Event(), threading.Event()
        self._work, self._report = work, report
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(token, self._asked.set))
        except OSError as error:
            raise ConfigError(f"--port {port}: {error.strerror}; choose another one") from None
        self._server.daemon_threads = True
        self._threads = (
            threading.Thread(target=self._server.serve_forever, daemon=True),
            threading.Thread(target=self._serve_wake_ups, daemon=True),
        )

    def __enter__(self) -> str:
        for thread in self._threads:
            thread.start()
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._over.set()
        self._asked.set()
        # a run that is under way is not awaited: it is continued by the next wake-up

    def _serve_wake_ups(self) -> None:
        while True:
            self._asked.wait()
            if self._over.is_set():
                return
            self._asked.clear()
            try:
                self._report(self._work())
            except ChurnError as error:
                self._report(str(error))
            except Exception:  # the next wake-up continues the run, so this thread must go on
                log.exception("a wake-up failed; the next one continues its run")


def _handler(token: str, wake: Callable[[], None]) -> type[BaseHTTPRequestHandler]:
    expected = f"Bearer {token}".encode()

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            given = (self.headers.get("Authorization") or "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, expected):
                return self._answer(401, "give the token: Authorization: Bearer TOKEN")
            length = self.headers.get("Content-Length") or "0"
            if not length.isdigit() or int(length) > LARGEST_BODY:
                return self._answer(413, f"the body may have {LARGEST_BODY} bytes")
            if self.path != "/wake":
                return self._answer(404, "the path is /wake")
            self.rfile.read(int(length))  # its content decides nothing
            wake()
            return self._answer(202, "the governor reads the database")

        def do_GET(self) -> None:
            if self.path == "/livez":
                return self._answer(200, "ok")
            return self._answer(405, "POST /wake")

        def _answer(self, status: int, text: str) -> None:
            body = f"{text}\n".encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """No access log: it would repeat what a client sent."""

    return Handler

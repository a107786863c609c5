"""Pages of text over HTTP, for probes and for Prometheus."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Page = Callable[[], tuple[int, str]]
"""Returns status and text."""


@contextmanager
def serve_pages(address: str, pages: Mapping[str, Page]) -> Iterator[str]:
    """Serves `pages` (path -> page) at `address` (host:port; port 0: a free one) inside the block, and
    gives the URL. Raises OSError or ValueError for an address that cannot be used."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            status, text = pages.get(self.path.partition("?")[0], lambda: (404, "not here"))()
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            """No log: probes come every few seconds."""

    host, _, port = address.rpartition(":")
    with ThreadingHTTPServer((host, int(port)), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
        thread.start()
        try:
            yield f"http://{host}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()

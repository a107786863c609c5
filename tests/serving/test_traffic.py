"""Requests are sent in the order of the customers, at the given rate, and every answer is counted."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from core.errors import ServingError
from serving.gateway.traffic import Pace, Traffic
from support.waits import seconds_until, within


class Server(ThreadingHTTPServer):
    """Answers slowly or refuses, as configured; records the customers and the largest number of requests at
    once.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.customers: list[Any] = []
        self.keys: set[str | None] = set()
        self.takes_s, self.refuses = 0.0, -1
        self.now, self.most, self.lock = 0, 0, threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            customer = body["instances"][0]["user_id"]
            self.server.customers.append(customer)
            self.server.keys.add(self.headers.get("authorization"))
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        time.sleep(self.server.takes_s)
        with self.server.lock:
            self.server.now -= 1
        self.send_response(503 if customer == self.server.refuses else 200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def test_requests_are_in_order_and_at_the_configured_rate(server: Server) -> None:
    with Traffic(server.url, "churn", "secret", [3, 1, 2], Pace(100, 1)) as traffic:
        seconds = seconds_until(lambda: len(server.customers) >= 50, 30)
    assert server.customers[:7] == [3, 1, 2, 3, 1, 2, 3]
    assert seconds > 0.45, "a busy machine may be late, and never early"
    assert traffic.counts == {"200": len(server.customers)} and traffic.failed == 0
    assert server.keys == {"Bearer secret"}


def test_a_slow_server_is_not_flooded(server: Server) -> None:
    server.takes_s = 0.2
    with Traffic(server.url, "churn", None, [1], Pace(1000, 3)):
        seconds = seconds_until(lambda: len(server.customers) >= 10, 30)
    assert server.most <= 3 and seconds > 0.5, "the tenth request waits for three answers of 0.2 s"
    assert server.keys == {None}


def test_an_answer_without_a_prediction_is_a_failure(server: Server) -> None:
    server.refuses = 2
    with Traffic(server.url, "churn", None, [1, 2], Pace(100, 2)) as traffic:
        within(30, lambda: server.customers.count(2) > 2)
    assert traffic.counts["503"] == traffic.failed == server.customers.count(2) > 0


def test_refused_connections_are_counted_and_raise_no_error() -> None:
    gone = Server()
    gone.server_close()
    with Traffic(gone.url, "churn", None, [1], Pace(50, 2)) as traffic:
        within(30, lambda: traffic.failed > 5)
    assert traffic.counts == {"ConnectionRefusedError": traffic.failed}


def test_without_customers_the_error_is_raised_at_once() -> None:
    with pytest.raises(ServingError, match="no customers"):
        Traffic("http://127.0.0.1:1", "churn", None, [], Pace(1, 1))

"""Sends requests for predictions to the gateway, at a constant rate."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from core.errors import ServingError

LATE_S = 1.0
"""Requests that are later than this are left out, so that a machine that is too slow is not flooded."""


@dataclass(frozen=True)
class Pace:
    requests_per_s: float
    clients: int
    """Connections, and so the largest number of requests in flight."""
    timeout_s: float = 30.0


class Traffic:
    """Sends requests for one customer each during the `with` block, in the order of `user_ids`, again and
    again."""

    def __init__(
        self, url: str, model: str, key: str | None, user_ids: Sequence[int | str], pace: Pace
    ) -> None:
        """`url`: the gateway's base URL; `key`: an API key. Raises ServingError when there is no customer."""
        if not user_ids:
            raise ServingError("there are no customers to send requests for: the source is empty")
        self._address = urlsplit(url).netloc
        self._path = f"/v1/models/{model}:predict"
        self._headers = {"content-type": "application/json"}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"
        self._bodies = [json.dumps({"instances": [{"user_id": user_id}]}) for user_id in user_ids]
        self._pause_s, self._timeout_s = 1.0 / pace.requests_per_s, pace.timeout_s
        self._over, self._lock = threading.Event(), threading.Lock()
        self._next, self._due = 0, 0.0
        self._counts: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._send, name="traffic") for _ in range(pace.clients)]

    def __enter__(self) -> Self:
        self._due = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for the answers of the requests in flight."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def counts(self) -> dict[str, int]:
        """Status (`200`), or name of the exception where the connection failed -> number of requests."""
        with self._lock:
            return dict(self._counts)

    @property
    def failed(self) -> int:
        """Requests that were not answered with a prediction."""
        return sum(number for outcome, number in self.counts.items() if outcome != "200")

    def _send(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=self._timeout_s)
        try:
            while (body := self._next_body()) is not None:
                try:
                    connection.request("POST", self._path, body, self._headers)
                    answer = connection.getresponse()
                    answer.read()
                    outcome = str(answer.status)
                except (OSError, http.client.HTTPException) as error:
                    outcome = type(error).__name__
                    connection.close()  # the next request opens another one
                with self._lock:
                    self._counts[outcome] += 1
        finally:
            connection.close()

    def _next_body(self) -> str | None:
        """Wait until the next request is due and return its body; None when the block has ended."""
        with self._lock:
            now = time.monotonic()
            self._due = max(self._due, now - LATE_S)
            due, number = self._due, self._next
            self._due += self._pause_s
            self._next += 1
        if self._over.wait(max(0.0, due - now)):
            return None
        return self._bodies[number % len(self._bodies)]

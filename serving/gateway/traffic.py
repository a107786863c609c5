"""Customers who are asked about one after the other, at a pace, as clients of the gateway do it."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from core.errors import ServingError

LATE_S = 1.0
"""So far behind its pace, it gives up what it missed: a machine that is too slow is not to be flooded."""


class Traffic:
    """Inside the `with` block, `requests_per_s` requests of one customer each go out over `clients`
    connections; so many are on their way at most. After the last customer comes the first again.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None,
        user_ids: Sequence[int | str],
        requests_per_s: float,
        clients: int,
        timeout_s: float = 30.0,
    ) -> None:
        """Raises ServingError where there is nobody to ask about."""
        if not user_ids:
            raise ServingError("no customers to ask about: the source is empty")
        self._address = urlsplit(url).netloc
        self._path = f"/v1/models/{model}:predict"
        self._headers = {"content-type": "application/json"}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"
        self._bodies = [json.dumps({"instances": [{"user_id": user_id}]}) for user_id in user_ids]
        self._pause_s, self._timeout_s = 1.0 / requests_per_s, timeout_s
        self._over, self._lock = threading.Event(), threading.Lock()
        self._next, self._due = 0, 0.0
        self._counts: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._ask, name="traffic") for _ in range(clients)]

    def __enter__(self) -> Self:
        self._due = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is on its way is waited for."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def counts(self) -> dict[str, int]:
        """What became of the requests: `200`, another status, or how the connection failed -> how many."""
        with self._lock:
            return dict(self._counts)

    @property
    def failed(self) -> int:
        """Requests that were not answered with a prediction."""
        return sum(number for outcome, number in self.counts.items() if outcome != "200")

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=self._timeout_s)
        try:
            while (body := self._turn()) is not None:
                try:
                    connection.request("POST", self._path, body, self._headers)
                    answer = connection.getresponse()
                    answer.read()
                    outcome = str(answer.status)
                except (OSError, http.client.HTTPException) as error:
                    outcome = type(error).__name__
                    connection.close()  # the next request connects anew
                with self._lock:
                    self._counts[outcome] += 1
        finally:
            connection.close()

    def _turn(self) -> str | None:
        """Wait until it is due; None when there is an end."""
        with self._lock:
            now = time.monotonic()
            self._due = max(self._due, now - LATE_S)
            due, number = self._due, self._next
            self._due += self._pause_s
            self._next += 1
        if self._over.wait(max(0.0, due - now)):
            return None
        return self._bodies[number % len(self._bodies)]

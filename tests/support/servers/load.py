"""Connections that send requests without a pause, and counts of what became of every single one."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Load:
    status: Counter[int] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    scores: set[float] = field(default_factory=set)
    refused: int = 0
    """Connections that were not accepted: nothing was sent."""
    without_retry_after: int = 0
    """Answers 503 without Retry-After."""
    cut: list[str] = field(default_factory=list)
    """Errors of requests that were sent and got no whole answer."""

    @property
    def answered(self) -> int:
        return sum(self.status.values())


@contextmanager
def under_load(
    url: str, key: str = "", users: Sequence[int] = (7,), connections: int = 64, reconnecting: bool = True
) -> Iterator[Load]:
    """One request at a time on each connection, about each of `users` in turn.

    `reconnecting`: every other client opens a new connection for each request. Fails the test if a request
    is still not answered two minutes after the block.
    """
    load, over = Load(), threading.Event()
    place = urlsplit(url)

    async def every_client() -> None:
        clients = []
        for number in range(connections):
            keeps, first = not reconnecting or number % 2 == 0, number % len(users)
            requests = [_request(user, key, keeps) for user in [*users[first:], *users[:first]]]
            clients.append(_client(str(place.hostname), int(place.port or 0), requests, load, over))
        await asyncio.gather(*clients)

    thread = threading.Thread(target=lambda: asyncio.run(every_client()))
    thread.start()
    try:
        yield load
    finally:
        over.set()
        thread.join(120)
        assert not thread.is_alive(), "a request was never answered"


def _request(user: int, key: str, keeps: bool) -> bytes:
    body = b'{"user_id": %d}' % user
    return (
        b"POST /predictions/churn HTTP/1.1\r\nHost: churn\r\nContent-Type: application/json\r\n"
        + (f"x-api-key: {key}\r\n".encode() if key else b"")
        + (b"" if keeps else b"Connection: close\r\n")
        + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )


async def _client(host: str, port: int, requests: Sequence[bytes], load: Load, over: threading.Event) -> None:
    writer, number = None, 0
    while not over.is_set():
        if writer is None:
            try:
                reader, writer = await asyncio.open_connection(host, port)
            except OSError:
                load.refused += 1
                await asyncio.sleep(0.05)
                continue
        try:
            writer.write(requests[number % len(requests)])
            number += 1
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(head.split("content-length:")[1].split("\r\n")[0])
            body = await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError, IndexError) as error:
            load.cut.append(repr(error)[:120])
            writer.close()
            writer = None
            continue
        status = int(head.split()[1])
        load.status[status] += 1
        load.without_retry_after += status == 503 and "retry-after:" not in head
        if status == 200:
            answer = json.loads(body)
            load.versions[answer["model_version"]] += 1
            load.scores.add(answer["churn_probability"])
        if "connection: close" in head:
            writer.close()
            writer = None
    if writer is not None:
        writer.close()

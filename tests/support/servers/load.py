"""Clients that ask without a pause and note what became of every single request."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Load:
    """Counts of what happened; `cut` is a request that was sent and got no whole answer."""

    status: Counter[int] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    scores: set[float] = field(default_factory=set)
    refused: int = 0
    """Connections that nobody took: nothing was sent."""
    without_retry_after: int = 0
    """Answers 503 that did not say when to come back."""
    cut: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return sum(self.status.values())


@contextmanager
def under_load(host: str, port: int, key: str, clients: int = 64) -> Iterator[Load]:
    """`clients` connections, one request on its way on each; every other connects anew each time."""
    load, over = Load(), threading.Event()
    request = _request(key)

    async def everybody() -> None:
        await asyncio.gather(
            *(_client(host, port, request(number % 2 == 0), load, over) for number in range(clients))
        )

    thread = threading.Thread(target=lambda: asyncio.run(everybody()))
    thread.start()
    try:
        yield load
    finally:
        over.set()
        thread.join(60)


def _request(key: str):  # type: ignore[no-untyped-def]
    body = b'{"user_id": 7}'

    def make(keep: bool) -> bytes:
        return (
            b"POST /predictions/churn HTTP/1.1\r\nHost: churn\r\nContent-Type: application/json\r\n"
            + f"x-api-key: {key}\r\nContent-Length: {len(body)}\r\n".encode()
            + (b"" if keep else b"Connection: close\r\n")
            + b"\r\n"
            + body
        )

    return make


async def _client(host: str, port: int, request: bytes, load: Load, over: threading.Event) -> None:
    writer = None
    while not over.is_set():
        if writer is None:
            try:
                reader, writer = await asyncio.open_connection(host, port)
            except OSError:
                load.refused += 1
                await asyncio.sleep(0.05)
                continue
        try:
            writer.write(request)
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

"""Many connections that ask without a pause about ever other customers, and note every single answer."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Storm:
    """`cut`: requests that were sent and got no whole answer."""

    status: Counter[int] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    cut: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return sum(self.status.values())


@contextmanager
def storm(url: str, users: list[int], connections: int = 48) -> Iterator[Storm]:
    made, over = Storm(), threading.Event()
    place = urlsplit(url)

    async def all_clients() -> None:
        await asyncio.gather(
            *(
                _one(str(place.hostname), int(place.port or 0), users[n:] + users[:n], made, over)
                for n in range(connections)
            )
        )

    thread = threading.Thread(target=lambda: asyncio.run(all_clients()))
    thread.start()
    try:
        yield made
    finally:
        over.set()
        thread.join(120)
        assert not thread.is_alive(), "a request was never answered"


async def _one(host: str, port: int, users: list[int], made: Storm, over: threading.Event) -> None:
    writer = None
    while not over.is_set():
        for user in users:
            if over.is_set():
                break
            if writer is None:
                reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_request(user))
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                body = await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
            except (OSError, asyncio.IncompleteReadError, IndexError) as error:
                made.cut.append(repr(error)[:120])
                writer.close()
                writer = None
                continue
            status = int(head.split()[1])
            made.status[status] += 1
            if status == 200:
                made.versions[json.loads(body)["model_version"]] += 1
            if "connection: close" in head:
                writer.close()
                writer = None
    if writer is not None:
        writer.close()


def _request(user: int) -> bytes:
    body = b'{"user_id": %d}' % user
    return (
        b"POST /predictions/churn HTTP/1.1\r\nHost: churn\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )

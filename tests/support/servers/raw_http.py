"""HTTP/1.1 as bytes on a socket: what a well-behaved client would refuse to send, and cannot."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

TIMEOUT_S = 60.0
WITHOUT_BODY = {204, 304}


class Cut(ConnectionError):
    """The server closed the connection without an answer."""


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class Connection:
    """One keep-alive connection, opened again when the server has closed it."""

    def __init__(self, host: str, port: int, headers: Mapping[str, str] | None = None) -> None:
        self._host, self._port = host, port
        self._headers = dict(headers or {})
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        chunk: int | None = None,
    ) -> Response:
        """Raises Cut when the server closes instead of answering, TimeoutError when it does neither."""
        message = _message(method, path, {"Host": self._host, **self._headers, **headers}, body, chunk)
        return await asyncio.wait_for(self._exchange(message, method), TIMEOUT_S)

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, message: bytes, method: str) -> Response:
        fresh = self._streams is None
        try:
            return await self._sent(message, method)
        except (OSError, asyncio.IncompleteReadError):
            await self.close()
            if fresh:
                raise Cut from None
        try:  # the connection had grown old: that says nothing of this request
            return await self._sent(message, method)
        except (OSError, asyncio.IncompleteReadError):
            await self.close()
            raise Cut from None

    async def _sent(self, message: bytes, method: str) -> Response:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=1 << 22)
        reader, writer = self._streams
        writer.write(message)
        with suppress(OSError):  # refused before the body's end: the answer may still be there to read
            await writer.drain()
        response = await _response(reader, method)
        if response.headers.get("connection", "").lower() == "close":
            await self.close()
        return response


def _message(method: str, path: str, headers: Mapping[str, str], body: bytes, chunk: int | None) -> bytes:
    length = {"Content-Length": str(len(body))} if chunk is None else {"Transfer-Encoding": "chunked"}
    head = [
        f"{method} {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in {**headers, **length}.items()),
    ]
    content = body if chunk is None else _chunked(body, chunk)
    return "\r\n".join([*head, "", ""]).encode("utf-8", "surrogateescape") + content


def _chunked(body: bytes, size: int) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


async def _response(reader: asyncio.StreamReader, method: str) -> Response:
    status = 100
    while status == 100:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines[1:-2])
    }
    if method == "HEAD" or status in WITHOUT_BODY:
        return Response(status, headers, b"")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return Response(status, headers, await _all_chunks(reader))
    if "content-length" in headers:
        return Response(status, headers, await reader.readexactly(int(headers["content-length"])))
    return Response(status, {**headers, "connection": "close"}, await reader.read())


async def _all_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return body

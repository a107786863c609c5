"""TorchServe's messages for a batch of predictions: requests as the frontend sends them, and their answers.

The format (ts/protocol/otf_message_handler.py). Integers are big-endian and signed, -1 is the end of a list:

    request: "I", then for each of a batch: id, headers (name, value), parameters (name, content type, value)
    answer:  code, reason, then for each: id, content type, code, reason, headers (count; name, value), body
"""

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

JSON = "application/json"
PHRASES = {status.value: status.phrase for status in HTTPStatus}

_INTEGER = struct.Struct("!i")
_integer_at = _INTEGER.unpack_from
_END = _INTEGER.pack(-1)


class WorkerRequest(NamedTuple):
    """One request of a batch, as the frontend sends it."""

    server_id: bytes
    """TorchServe's own id of the request; the answer has it too, so that the frontend finds the client."""
    headers: bytes
    """The part of the message with all names and values; `header_fields` parses it."""
    row: Mapping[str, bytes]
    """Parameter -> content; the body of a request is the parameter `body`."""


class WorkerResponse(NamedTuple):
    """The answer to one request."""

    http_status: int
    body: bytes
    headers: Sequence[tuple[str, str]]
    """Names and values, without the content type."""
    content_type: str = JSON


class PartialBatch:
    """Parses one message that arrives in pieces; only the bytes of an unfinished field are parsed again."""

    def __init__(self) -> None:
        self.requests: list[WorkerRequest] = []
        self.at = 0
        """Position in the bytes of the last call up to which they are parsed."""
        self._begun: tuple[bytes, bytes, dict[str, bytes]] | None = None
        """Server id, headers and parameters of the request that is not complete yet."""

    def parse(self, buffer: bytes, at: int) -> int:
        """Parses `buffer` from position `at`, where the last call stopped.

        Returns 0 when the message is complete, otherwise how many bytes after the new `self.at` are needed
        before another call can get further.
        """
        end = len(buffer)
        self.at = at
        try:
            while True:
                if self._begun is None:
                    (size,) = _integer_at(buffer, at)
                    if size < 0:
                        self.at = at + 4
                        return 0
                    begin, at = at + 4, at + 4 + size
                    # Four bytes 0xff only occur as the end of the list: UTF-8 has no such byte, and the
                    # length of a field, which is below 2**24, begins with a zero byte.
                    stop = buffer.find(_END, at)
                    if stop < 0:
                        return max(at + 4, end + 1) - self.at
                    self._begun = buffer[begin:at], buffer[at:stop], {}
                    self.at = at = stop + 4
                server_id, headers, row = self._begun
                while True:
                    (size,) = _integer_at(buffer, at)
                    if size < 0:
                        break
                    begin, at = at + 4, at + 4 + size
                    name = buffer[begin:at]
                    (size,) = _integer_at(buffer, at)  # of the content type, which is not used
                    at += 4 + size
                    (size,) = _integer_at(buffer, at)
                    begin, at = at + 4, at + 4 + size
                    if at > end:
                        return at - self.at
                    row[name.decode("utf-8", "replace")] = buffer[begin:at]
                    self.at = at
                self.at = at = at + 4
                self.requests.append(WorkerRequest(server_id, headers, row))
                self._begun = None
        except struct.error:  # the bytes end inside a length
            return max(at + 4, end + 1) - self.at


def header_fields(block: bytes) -> list[tuple[bytes, bytes]]:
    """Names and values of the headers of a request. Raises ValueError if `block` is not a list of them."""
    found = []
    at, end = 0, len(block)
    try:
        while at < end:
            (size,) = _integer_at(block, at)
            begin, at = at + 4, at + 4 + size
            name = block[begin:at]
            (length,) = _integer_at(block, at)
            begin, at = at + 4, at + 4 + length
            if size < 0 or length < 0 or at > end:
                raise ValueError("the headers end inside a field")
            found.append((name, block[begin:at]))
    except struct.error:
        raise ValueError("the headers end inside a field") from None
    return found


def response_message(requests: Sequence[WorkerRequest], responses: Sequence[WorkerResponse]) -> bytes:
    """The message that answers a batch; one response for each request.

    Raises ValueError if their numbers differ, and KeyError for a status that HTTP does not define.
    """
    parts = [_BATCH_ANSWERED]
    pack = _INTEGER.pack
    for (server_id, _, _), (status, body, headers, content_type) in zip(requests, responses, strict=True):
        parts += (
            pack(len(server_id)),
            server_id,
            _start(status, len(headers), content_type),
            *(_field(part) for header in headers for part in header),
            pack(len(body)),
            body,
        )
    parts.append(_END)
    return b"".join(parts)


def _field(text: str) -> bytes:
    content = text.encode()
    return _INTEGER.pack(len(content)) + content


@lru_cache(256)
def _start(http_status: int, headers: int, content_type: str) -> bytes:
    """From the content type to our first header. TorchServe needs the content type in both places."""
    kind = _field(content_type)
    return b"".join(
        (
            kind,
            _INTEGER.pack(http_status),
            _field(PHRASES[http_status]),
            _INTEGER.pack(headers + 1),
            _field("content-type"),
            kind,
        )
    )


_BATCH_ANSWERED = _INTEGER.pack(200) + _field("Prediction success")

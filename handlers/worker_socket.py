"""TorchServe's worker, speaking to its frontend in whole batches.

TorchServe 0.12 asks the kernel for every field of a message apart (some sixty calls a request), makes an
object of each, and writes its answer field by field. That costs more than a prediction of ours. `take_over`
puts a reader and a writer of whole messages in their place: the same bytes come in and go out, and `answer`
is asked a batch at a time. Loading, and what nobody has told us of, stay with TorchServe's own code.

The format (ts/protocol/otf_message_handler.py), all integers big-endian and signed, -1 where a list ends:

    request: "I", then for each of a batch: id, headers (name, value), parameters (name, content type, value)
    answer:  code, reason, then for each: id, content type, code, reason, headers (count; name, value), body
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from types import ModuleType
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

VERSION = "0.12.0"
"""Of TorchServe, whose private functions these are; another one is left as it is."""
PIECE_BYTES = 65_536
PREDICT = b"I"
JSON = b"application/json"
PHRASES = {status.value: status.phrase for status in HTTPStatus}

_INTEGER = struct.Struct("!i")
_integer_at = _INTEGER.unpack_from
_END = _INTEGER.pack(-1)


class Asked(NamedTuple):
    """One request of a batch, as the frontend passes it on."""

    server_id: bytes
    """TorchServe's own id of the request, by which the frontend finds the caller again."""
    headers: bytes
    """Names and values as they stand in the message: see `headers_in`."""
    row: Mapping[str, bytes]
    """Parameter -> content; the body of a request is the parameter `body`."""


class Answered(NamedTuple):
    """What goes back for one request, always JSON."""

    http_status: int
    body: bytes
    headers: Sequence[tuple[str, str]]
    """Beside the content type."""


Answering = Callable[[Sequence[Asked]], Sequence[Answered]]


class Connection(Protocol):
    def recv(self, size: int, /) -> bytes: ...


class Disconnected(Exception):
    """The other side closed the connection."""


class Buffered:
    """What was received and not yet asked for. TorchServe sends only after our answer, so that no piece of
    a later message is ever held back from anybody.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._held = b""
        self._next = 0

    def read(self, length: int) -> bytes:
        """The next `length` bytes. Raises Disconnected."""
        begin = self._next
        if begin + length > len(self._held):
            self._fill(begin + length)
            begin = self._next
        self._next = begin + length
        return self._held[begin : begin + length]

    def unread(self, length: int) -> None:
        """Give back what was read last."""
        self._next -= length

    def batch(self) -> list[Asked]:
        """The requests of a message whose first byte is read. Raises Disconnected."""
        while True:
            try:
                requests, self._next = requests_in(self._held, self._next)
            except _Short as short:
                self._fill(short.end)
            else:
                return requests

    def _fill(self, end: int) -> None:
        """Receive at least up to position `end` of what is held; what was asked for before is let go."""
        pieces = [self._held[self._next :]]
        missing = end - len(self._held)
        while missing > 0:
            piece = self._connection.recv(max(missing, PIECE_BYTES))
            if not piece:
                raise Disconnected
            pieces.append(piece)
            missing -= len(piece)
        self._held = b"".join(pieces)
        self._next = 0


class _Short(Exception):
    """The message goes on, at least up to `end`."""

    def __init__(self, end: int) -> None:
        self.end = end


def requests_in(message: bytes, at: int) -> tuple[list[Asked], int]:
    """The requests of a batch that begins at `at`, and where it ends. Raises _Short."""
    found: list[Asked] = []
    held = len(message)
    try:
        while True:
            (size,) = _integer_at(message, at)
            if size < 0:
                return found, at + 4
            begin, at = at + 4, at + 4 + size
            server_id = message[begin:at]
            # UTF-8 has no byte 0xff, and no field has 2**24 bytes: where four of them stand, the list ends
            stop = message.find(_END, at)
            if stop < 0:
                raise _Short(held + 1)
            headers = message[at:stop]
            at = stop + 4
            row: dict[str, bytes] = {}
            while True:
                (size,) = _integer_at(message, at)
                if size < 0:
                    break
                begin, at = at + 4, at + 4 + size
                name = message[begin:at]
                (size,) = _integer_at(message, at)  # of the content type, which decides nothing here
                at += 4 + size
                (size,) = _integer_at(message, at)
                begin, at = at + 4, at + 4 + size
                if at > held:
                    raise _Short(at)
                row[name.decode("utf-8", "replace")] = message[begin:at]
            at += 4
            found.append(Asked(server_id, headers, row))
    except struct.error:
        raise _Short(max(at + 4, held + 1)) from None


def headers_in(block: bytes) -> dict[str, str]:
    """The headers of a request; of one that stands twice the last. Raises ValueError where it is no list."""
    found: dict[str, str] = {}
    at, end = 0, len(block)
    while at < end:
        fields = []
        for _ in range(2):
            if at + 4 > end:
                raise ValueError("the headers end inside a field")
            (size,) = _integer_at(block, at)
            begin, at = at + 4, at + 4 + size
            if size < 0 or at > end:
                raise ValueError("the headers end inside a field")
            fields.append(block[begin:at].decode("utf-8", "replace"))
        found[fields[0]] = fields[1]
    return found


def answer_to(asked: Sequence[Asked], answers: Sequence[Answered]) -> bytes:
    """The message that answers a batch."""
    parts = [_BATCH_ANSWERED]
    pack = _INTEGER.pack
    for (server_id, _, _), (status, body, headers) in zip(asked, answers, strict=True):
        parts += (
            pack(len(server_id)),
            server_id,
            _start(status, len(headers)),
            *(_field(part) for header in headers for part in header),
            pack(len(body)),
            body,
        )
    parts.append(_END)
    return b"".join(parts)


def take_over(
    worker: ModuleType, messages: ModuleType, service: Any, version: str, answer: Answering
) -> bool:
    """Let a worker of TorchServe `version` ask `answer`; whether that was done.

    `worker` is the module that runs (ts/model_service_worker.py as __main__), `messages` its
    ts.protocol.otf_message_handler, `service` the class ts.service.Service.
    """
    if version != VERSION or not all(
        callable(getattr(owner, name, None))
        for owner, name in (
            (worker, "retrieve_msg"),
            (messages, "_retrieve_buffer"),
            (messages, "create_predict_response"),
            (service, "predict"),
        )
    ):
        return False
    theirs, end_of_worker = worker.retrieve_msg, messages._retrieve_buffer
    buffers: WeakKeyDictionary[Any, Buffered] = WeakKeyDictionary()

    def buffer_of(connection: Any) -> Buffered:
        buffered = buffers.get(connection)
        if buffered is None:
            buffered = buffers[connection] = Buffered(connection)
        return buffered

    def retrieve_buffer(connection: Any, length: int) -> bytearray:
        try:
            return bytearray(buffer_of(connection).read(length))
        except Disconnected:
            # TorchServe's own function finds that out too, and ends the worker its way
            return bytearray(end_of_worker(connection, 1))

    def retrieve_message(connection: Any) -> tuple[bytes, Any]:
        buffered = buffer_of(connection)
        try:
            command = buffered.read(1)
            if command == PREDICT:
                return command, buffered.batch()
        except Disconnected:
            end_of_worker(connection, 1)
        buffered.unread(1)
        return theirs(connection)  # type: ignore[no-any-return]

    def predict(self: Any, asked: list[Asked]) -> bytes:
        return answer_to(asked, answer(asked))

    messages._retrieve_buffer = retrieve_buffer  # type: ignore[attr-defined]
    worker.retrieve_msg = retrieve_message  # type: ignore[attr-defined]
    service.predict = predict
    return True


def _field(text: str) -> bytes:
    content = text.encode()
    return _INTEGER.pack(len(content)) + content


@lru_cache(256)
def _start(http_status: int, headers: int) -> bytes:
    """From the content type to the first header of ours. TorchServe wants the content type in both places."""
    content_type = _INTEGER.pack(len(JSON)) + JSON
    return b"".join(
        (
            content_type,
            _INTEGER.pack(http_status),
            _field(PHRASES[http_status]),
            _INTEGER.pack(headers + 1),
            _field("content-type"),
            content_type,
        )
    )


_BATCH_ANSWERED = _INTEGER.pack(200) + _field("Prediction success")

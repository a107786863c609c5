"""TorchServe's worker, speaking to its frontend in whole batches.

TorchServe 0.12 asks the kernel for every field of a message separately (some sixty calls a request), makes an
object of each, and writes its answer field by field. That costs more than a prediction of ours. `take_over`
puts a reader and a writer of whole messages in their place: the same bytes come in and go out, and `answer`
is asked a batch at a time. Loading, and every other command, stay with TorchServe's own code.

The format (ts/protocol/otf_message_handler.py), all integers big-endian and signed, -1 where a list ends:

    request: "I", then for each of a batch: id, headers (name, value), parameters (name, content type, value)
    answer:  code, reason, then for each: id, content type, code, reason, headers (count; name, value), body
"""

import logging
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
JSON = "application/json"
PHRASES = {status.value: status.phrase for status in HTTPStatus}

log = logging.getLogger("churn.handler")

_INTEGER = struct.Struct("!i")
_integer_at = _INTEGER.unpack_from
_END = _INTEGER.pack(-1)


class WorkerRequest(NamedTuple):
    """One request of a batch, as the frontend passes it on."""

    server_id: bytes
    """TorchServe's own id of the request, by which the frontend finds the caller again."""
    headers: bytes
    """Names and values as they stand in the message: see `header_fields`."""
    row: Mapping[str, bytes]
    """Parameter -> content; the body of a request is the parameter `body`."""


class WorkerResponse(NamedTuple):
    """What goes back for one request."""

    http_status: int
    body: bytes
    headers: Sequence[tuple[str, str]]
    """Beside the content type."""
    content_type: str = JSON


Answering = Callable[[Sequence[WorkerRequest]], Sequence[WorkerResponse]]
FAILED = WorkerResponse(
    503,
    b'{"error": "the server failed at this request, which is logged", "code": "internal"}',
    [("Retry-After", "1")],
)
"""For a request at which the handler raised. TorchServe's own code would answer 503, too."""


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

    def batch(self) -> list[WorkerRequest]:
        """The requests of a message whose first byte is read. Raises Disconnected.

        What is parsed once is not looked at again, however the bytes arrive: time grows with the message.
        """
        parsed = PartialBatch()
        while (missing := parsed.go_on(self._held, self._next)) > 0:
            self._next = parsed.at
            self._fill(parsed.at + missing)
        self._next = parsed.at
        return parsed.requests

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


class PartialBatch:
    """The requests of one message, as far as its bytes have come."""

    def __init__(self) -> None:
        self.requests: list[WorkerRequest] = []
        self.at = 0
        """Up to here the bytes last given are parsed."""
        self._begun: tuple[bytes, bytes, dict[str, bytes]] | None = None
        """Server id, headers and parameters so far of a request whose end has not come yet."""

    def go_on(self, held: bytes, at: int) -> int:
        """Parse `held` from `at`, where the last call stopped. Returns how many bytes from the new `at` on
        have to be there before it is worth another call; 0: the message is complete.
        """
        end = len(held)
        self.at = at
        try:
            while True:
                if self._begun is None:
                    (size,) = _integer_at(held, at)
                    if size < 0:
                        self.at = at + 4
                        return 0
                    begin, at = at + 4, at + 4 + size
                    # UTF-8 has no byte 0xff, and no field has 2**24 bytes: where four of them stand, the
                    # list ends
                    stop = held.find(_END, at)
                    if stop < 0:
                        return max(at + 4, end + 1) - self.at
                    self._begun = held[begin:at], held[at:stop], {}
                    self.at = at = stop + 4
                server_id, headers, row = self._begun
                while True:
                    (size,) = _integer_at(held, at)
                    if size < 0:
                        break
                    begin, at = at + 4, at + 4 + size
                    name = held[begin:at]
                    (size,) = _integer_at(held, at)  # of the content type, which decides nothing here
                    at += 4 + size
                    (size,) = _integer_at(held, at)
                    begin, at = at + 4, at + 4 + size
                    if at > end:
                        return at - self.at
                    row[name.decode("utf-8", "replace")] = held[begin:at]
                    self.at = at
                self.at = at = at + 4
                self.requests.append(WorkerRequest(server_id, headers, row))
                self._begun = None
        except struct.error:  # in the middle of a length
            return max(at + 4, end + 1) - self.at


def header_fields(block: bytes) -> list[tuple[bytes, bytes]]:
    """Names and values of the headers of a request. Raises ValueError where it is no list."""
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
    """The message that answers a batch.

    Raises ValueError when these are not as many, and KeyError for an unknown status.
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

    def predict(self: Any, requests: list[WorkerRequest]) -> bytes:
        return answered_safely(requests, answer)

    messages._retrieve_buffer = retrieve_buffer  # type: ignore[attr-defined]
    worker.retrieve_msg = retrieve_message  # type: ignore[attr-defined]
    service.predict = predict
    return True


def answered_safely(requests: Sequence[WorkerRequest], answer: Answering) -> bytes:
    """The message that answers a batch, whatever `answer` raises: an exception would end the worker.

    A batch that fails is asked again request by request, so that only the one at fault is FAILED.
    """
    try:
        return response_message(requests, answer(requests))
    except Exception as error:  # TorchServe's own `predict`, in whose place this stands, has the same net
        log.error("BUG: a batch of %d: %s", len(requests), type(error).__name__)
    return response_message(requests, [_answered_alone(request, answer) for request in requests])


def _answered_alone(request: WorkerRequest, answer: Answering) -> WorkerResponse:
    try:
        [response] = answer([request])
        response_message([request], [response])  # it has to fit into a message, too
    except Exception as error:
        log.error("BUG: a request: %s", type(error).__name__)
        return FAILED
    return response


def _field(text: str) -> bytes:
    content = text.encode()
    return _INTEGER.pack(len(content)) + content


@lru_cache(256)
def _start(http_status: int, headers: int, content_type: str) -> bytes:
    """From the content type to the first header of ours. TorchServe wants the content type in both places."""
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

"""Replaces the code with which TorchServe's worker reads requests from its frontend and writes answers.

TorchServe 0.12 calls the kernel for every field of a message separately (some sixty calls for each request),
makes an object of each, and writes its answer field by field. That costs more than one of our predictions.
`take_over` replaces it by code that reads and writes whole messages. The bytes on the socket are the same,
and `answer` is called once for each batch. Loading and all other commands are still done by TorchServe's own
code.
"""

import logging
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from handlers.torchserve.batch_message import PartialBatch, WorkerRequest, WorkerResponse, response_message

VERSION = "0.12.0"
"""The version of TorchServe whose private functions are replaced; other versions are not changed."""
PIECE_BYTES = 65_536
PREDICT = b"I"

log = logging.getLogger("churn.handler")

Answering = Callable[[Sequence[WorkerRequest]], Sequence[WorkerResponse]]
FAILED = WorkerResponse(
    503,
    b'{"error": "the server failed at this request, which is logged", "code": "internal"}',
    [("Retry-After", "1")],
)
"""For a request at which the handler raised an error. TorchServe's own code answers 503 as well."""


class Connection(Protocol):
    def recv(self, size: int, /) -> bytes: ...


class Disconnected(Exception):
    """The other side closed the connection."""


class Buffered:
    """Bytes that were received and not read yet.

    TorchServe sends its next message only after our answer, so the buffer never delays a later message.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._buffer = b""
        self._next = 0

    def read(self, length: int) -> bytes:
        """The next `length` bytes. Raises Disconnected."""
        begin = self._next
        if begin + length > len(self._buffer):
            self._fill(begin + length)
            begin = self._next
        self._next = begin + length
        return self._buffer[begin : begin + length]

    def unread(self, length: int) -> None:
        """Makes the bytes that were read last available again."""
        self._next -= length

    def batch(self) -> list[WorkerRequest]:
        """The requests of a message whose first byte is already read. Raises Disconnected.

        The time is linear in the size of the message, in whatever pieces it arrives.
        """
        partial = PartialBatch()
        while (missing := partial.parse(self._buffer, self._next)) > 0:
            self._next = partial.at
            self._fill(partial.at + missing)
        self._next = partial.at
        return partial.requests

    def _fill(self, end: int) -> None:
        """Receives at least up to position `end` of the buffer, and discards what was read before."""
        pieces = [self._buffer[self._next :]]
        missing = end - len(self._buffer)
        while missing > 0:
            piece = self._connection.recv(max(missing, PIECE_BYTES))
            if not piece:
                raise Disconnected
            pieces.append(piece)
            missing -= len(piece)
        self._buffer = b"".join(pieces)
        self._next = 0


def take_over(
    worker: ModuleType, messages: ModuleType, service: Any, version: str, answer: Answering
) -> bool:
    """Makes a worker of TorchServe call `answer`. Returns False, and changes nothing, for another `version`.

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
    their_retrieve_message, their_retrieve_buffer = worker.retrieve_msg, messages._retrieve_buffer
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
            # TorchServe's own function notices it as well, and ends the worker in its way.
            return bytearray(their_retrieve_buffer(connection, 1))

    def retrieve_message(connection: Any) -> tuple[bytes, Any]:
        buffered = buffer_of(connection)
        try:
            command = buffered.read(1)
            if command == PREDICT:
                return command, buffered.batch()
        except Disconnected:
            their_retrieve_buffer(connection, 1)
        buffered.unread(1)
        return their_retrieve_message(connection)  # type: ignore[no-any-return]

    def predict(self: Any, requests: list[WorkerRequest]) -> bytes:
        return answered_safely(requests, answer)

    messages._retrieve_buffer = retrieve_buffer  # type: ignore[attr-defined]
    worker.retrieve_msg = retrieve_message  # type: ignore[attr-defined]
    service.predict = predict
    return True


def answered_safely(requests: Sequence[WorkerRequest], answer: Answering) -> bytes:
    """The message that answers a batch. It catches all errors of `answer`, since they would end the worker.

    After an error the requests are answered one by one, so that only the one that causes it gets FAILED.
    """
    try:
        return response_message(requests, answer(requests))
    except Exception as error:  # TorchServe's own `predict` catches all errors as well
        log.error("BUG: a batch of %d: %s", len(requests), type(error).__name__)
    return response_message(requests, [_answered_alone(request, answer) for request in requests])


def _answered_alone(request: WorkerRequest, answer: Answering) -> WorkerResponse:
    try:
        [response] = answer([request])
        response_message([request], [response])  # checks that it can be written
    except Exception as error:
        log.error("BUG: a request: %s", type(error).__name__)
        return FAILED
    return response

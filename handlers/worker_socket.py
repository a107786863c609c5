"""TorchServe's worker, reading its socket in large pieces.

TorchServe 0.12 asks the kernel for every field of a message apart, two calls for a text, some sixty
a request. `read_in_large_pieces(ts_messages)` puts a buffer between: the same functions read the same fields
in the same order, from memory. Messages, end of file and errors stay as they are. When TorchServe's module
looks otherwise than the one this was written for, nothing is changed and the answer is False.
"""

import inspect
from types import ModuleType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

PIECE_BYTES = 65_536
EXPECTED = {"_retrieve_buffer": ["conn", "length"], "_retrieve_int": ["conn"], "retrieve_msg": ["conn"]}


class Connection(Protocol):
    def recv(self, size: int, /) -> bytes: ...


class Buffered:
    """What was received and not yet asked for. TorchServe sends only after our answer, so that no piece of
    a later message is ever held back from anybody.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._held = b""
        self._next = 0

    def read(self, length: int) -> bytes | None:
        """The next `length` bytes; None when the other side has closed before."""
        end = self._next + length
        if end <= len(self._held):
            found = self._held[self._next : end]
            self._next = end
            return found
        pieces = [self._held[self._next :]]
        missing = length - len(pieces[0])
        while missing > 0:
            piece = self._connection.recv(max(missing, PIECE_BYTES))
            if not piece:
                return None
            pieces.append(piece)
            missing -= len(piece)
        self._held = b"".join(pieces)
        self._next = length
        return self._held[:length]


def read_in_large_pieces(messages: ModuleType) -> bool:
    """Let `ts.protocol.otf_message_handler` read through a buffer; whether that was possible."""
    if not _is_as_expected(messages):
        return False
    untouched = messages._retrieve_buffer
    buffers: WeakKeyDictionary[Any, Buffered] = WeakKeyDictionary()

    def retrieve_buffer(conn: Any, length: int) -> bytearray:
        buffered = buffers.get(conn)
        if buffered is None:
            buffered = buffers[conn] = Buffered(conn)
        found = buffered.read(length)
        if found is None:
            # nothing more comes: TorchServe's own function finds that out too, and ends the worker its way
            return bytearray(untouched(conn, 1))
        return bytearray(found)

    messages._retrieve_buffer = retrieve_buffer  # type: ignore[attr-defined]
    return True


def _is_as_expected(messages: ModuleType) -> bool:
    for name, arguments in EXPECTED.items():
        function = getattr(messages, name, None)
        if not inspect.isfunction(function) or list(inspect.signature(function).parameters) != arguments:
            return False
    return True

"""The buffered reader reads what TorchServe's own reads, however the bytes arrive."""

import importlib.util
import json
import random
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from handlers.worker_socket import read_in_large_pieces


def messages_module() -> ModuleType:
    """A copy of TorchServe's module that only this test changes."""
    spec = importlib.util.find_spec("ts.protocol.otf_message_handler")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text(value: bytes) -> bytes:
    return struct.pack("!i", len(value)) + value


END = struct.pack("!i", -1)
LOAD = (
    b"L"
    + text(b"churn")
    + text(b"/models/churn")
    + struct.pack("!i", 16)
    + text(b"churn_handler.py")
    + struct.pack("!i", -1)
    + text(b"")
    + b"\x01"
)


def predict(bodies: Sequence[bytes], content_type: bytes = b"application/json") -> bytes:
    requests = b""
    for number, body in enumerate(bodies):
        headers = b"".join(
            text(name) + text(value) for name, value in ((b"x-request-id", b"%d" % number), (b"a", b""))
        )
        requests += (
            text(b"request-%d" % number)
            + headers
            + END
            + text(b"body")
            + text(content_type)
            + text(body)
            + END
        )
    return b"I" + requests + END


BODIES = [b'{"user_id": 1}', b"", b"\xff\x00 not json", b"[" + b"1," * 40_000 + b"1]"]
STREAM = (
    LOAD
    + predict(BODIES[:1])
    + predict(BODIES)
    + predict([])
    + predict(BODIES, b"text/plain")
    + b"L"
    + LOAD[1:]
)
COUNT = 6


def received(module: ModuleType, pieces: Sequence[bytes]) -> list[Any]:
    """All messages that the module reads from a real socket on which `pieces` arrive one after the other."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        for piece in pieces:
            theirs.sendall(piece)
        theirs.close()

    sender = threading.Thread(target=send)
    sender.start()
    try:
        return [module.retrieve_msg(ours) for _ in range(COUNT)]
    finally:
        ours.close()
        sender.join()


def cut(sizes: Callable[[], int]) -> list[bytes]:
    pieces, begin = [], 0
    while begin < len(STREAM):
        size = sizes()
        pieces.append(STREAM[begin : begin + size])
        begin += size
    return pieces


@pytest.mark.parametrize("decode", [None, "false"])
def test_any_pieces_give_the_messages_of_torchserve(
    monkeypatch: pytest.MonkeyPatch, decode: str | None
) -> None:
    if decode is not None:
        monkeypatch.setenv("TS_DECODE_INPUT_REQUEST", decode)
    plain, buffered = messages_module(), messages_module()
    assert read_in_large_pieces(buffered)
    expected = received(plain, [STREAM])
    numbers = random.Random(0)
    ways = ([STREAM], cut(lambda: 997), cut(lambda: numbers.randint(1, 4000)), cut(lambda: 65_536))
    for pieces in ways:
        assert received(buffered, pieces) == expected
    assert [command for command, _ in expected] == [b"L", b"I", b"I", b"I", b"I", b"L"]
    value = expected[2][1][0]["parameters"][0]["value"]
    assert value == (json.loads(BODIES[0]) if decode is None else bytearray(BODIES[0]))


def test_fewer_calls_reach_the_kernel() -> None:
    def calls(module: ModuleType) -> int:
        class Counted:
            def __init__(self) -> None:
                self.rest, self.calls = predict([b'{"user_id": 1}'] * 16), 0

            def recv(self, size: int) -> bytes:
                self.calls += 1
                piece, self.rest = self.rest[:size], self.rest[size:]
                return piece

        connection = Counted()
        module.retrieve_msg(connection)
        return connection.calls

    buffered = messages_module()
    read_in_large_pieces(buffered)
    assert (calls(buffered), calls(messages_module()) > 200) == (1, True)


def test_two_connections_do_not_mix() -> None:
    module = messages_module()
    read_in_large_pieces(module)
    pairs = [socket.socketpair() for _ in range(2)]
    for number, (_, theirs) in enumerate(pairs):
        theirs.sendall(predict([b"%d" % number]) * 2)
    found = [module.retrieve_msg(ours)[1][0]["parameters"][0]["value"] for _ in range(2) for ours, _ in pairs]
    assert found == [0, 1, 0, 1]
    for pair in pairs:
        for end in pair:
            end.close()


@pytest.mark.parametrize("length", [0, 1, 5, 40])
def test_the_end_of_the_connection_ends_the_worker_as_ever(length: int) -> None:
    module = messages_module()
    read_in_large_pieces(module)
    ours, theirs = socket.socketpair()
    theirs.sendall(predict([b"{}"])[:length])
    theirs.close()
    with pytest.raises(SystemExit) as ended:
        module.retrieve_msg(ours)
    assert ended.value.code == 0
    ours.close()


def test_another_torchserve_is_left_alone() -> None:
    other = messages_module()
    other._retrieve_int = lambda conn, signed: 0  # type: ignore[attr-defined]
    before = other._retrieve_buffer
    assert not read_in_large_pieces(other)
    assert other._retrieve_buffer is before
    assert not read_in_large_pieces(SimpleNamespace())  # type: ignore[arg-type]

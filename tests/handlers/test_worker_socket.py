"""Messages are read and written as by TorchServe's own code, in whatever pieces they arrive."""

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
from ts.context import Context, RequestProcessor
from ts.service import Service

from handlers.torchserve import worker_socket
from handlers.torchserve.batch_message import (
    PartialBatch,
    WorkerRequest,
    WorkerResponse,
    header_fields,
    response_message,
)
from handlers.torchserve.worker_socket import take_over


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


BODIES = [b'{"user_id": 1}', b"", b"\xff\xff\xff\xff\x00 not json", b"[" + b"1," * 400_000 + b"1]"]
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


@pytest.fixture(autouse=True)
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in configs/torchserve."""
    monkeypatch.setenv("TS_DECODE_INPUT_REQUEST", "false")


def taken_over(
    answer: Callable[[Sequence[WorkerRequest]], Sequence[WorkerResponse]] = lambda requests: [],
) -> tuple[ModuleType, Any]:
    """The worker's module and its service, copies that only this test changes."""
    messages, worker = messages_module(), ModuleType("worker")
    worker.retrieve_msg = messages.retrieve_msg  # type: ignore[attr-defined]
    service = type("Service", (Service,), {})
    assert take_over(worker, messages, service, "0.12.0", answer)
    return worker, service


def received(retrieve: Callable[[Any], Any], pieces: Sequence[bytes]) -> list[Any]:
    """All messages that are read from a real socket when `pieces` arrive one after the other."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        for piece in pieces:
            theirs.sendall(piece)
        theirs.close()

    sender = threading.Thread(target=send)
    sender.start()
    try:
        return [retrieve(ours) for _ in range(COUNT)]
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


def as_torchserve(request: WorkerRequest) -> dict[str, Any]:
    """A request in the form of TorchServe's own reader."""
    return {
        "requestId": bytearray(request.server_id),
        "headers": [
            {"name": bytearray(name), "value": bytearray(value)}
            for name, value in header_fields(request.headers)
        ],
        "parameters": [(name, bytearray(value)) for name, value in request.row.items()],
    }


def test_messages_in_any_pieces_are_those_of_torchserve() -> None:
    expected = received(messages_module().retrieve_msg, [STREAM])
    assert [command for command, _ in expected] == [b"L", b"I", b"I", b"I", b"I", b"L"]
    assert expected[2][1][3]["parameters"][0]["value"] == bytearray(BODIES[3])
    for _, batch in expected[1:5]:
        for request in batch:
            request["parameters"] = [(one["name"], one["value"]) for one in request["parameters"]]
    numbers = random.Random(0)
    ways = ([STREAM], cut(lambda: 9_973), cut(lambda: numbers.randint(1, 40_000)), cut(lambda: 65_536))
    for pieces in ways:
        found = received(taken_over()[0].retrieve_msg, pieces)
        assert [command for command, _ in found] == [command for command, _ in expected]
        assert (found[0], found[5]) == (expected[0], expected[5])
        assert [[as_torchserve(one) for one in batch] for _, batch in found[1:5]] == [
            batch for _, batch in expected[1:5]
        ]


def test_a_message_may_be_interrupted_anywhere() -> None:
    message = predict(BODIES[:3])
    for length in range(1, len(message)):
        ours, theirs = socket.socketpair()
        theirs.sendall(message[:length])
        late = threading.Timer(0.001, theirs.sendall, [message[length:]])
        late.start()
        command, batch = taken_over()[0].retrieve_msg(ours)
        late.join()
        assert (command, [one.row["body"] for one in batch]) == (b"I", BODIES[:3])
        ours.close()
        theirs.close()


def test_answers_are_the_bytes_of_torchserve() -> None:
    answers = [
        WorkerResponse(200, b'{"a": 1}', [("x-churn-request-id", "one")]),
        WorkerResponse(404, "Łódź".encode(), [("x-churn-request-id", "two")]),
        WorkerResponse(503, b"", [("x-churn-request-id", ""), ("Retry-After", "2")]),
    ]
    ids = {at: f"id-{at}" for at in range(3)}
    context = Context("churn", "", {}, 3, None, "0.12.0")
    context.request_processor = [RequestProcessor({}) for _ in answers]
    for at, answer in enumerate(answers):
        phrase = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}[answer.http_status]
        context.set_response_status(answer.http_status, phrase, at)
        context.set_response_content_type(at, "application/json")
        for name, value in answer.headers:
            context.set_response_header(at, name, value)
    expected = messages_module().create_predict_response(
        [answer.body for answer in answers], ids, "Prediction success", 200, context=context
    )
    requests = [WorkerRequest(name.encode(), b"", {}) for name in ids.values()]
    assert response_message(requests, answers) == bytes(expected)
    # The worker calls `predict`.
    _, service = taken_over(lambda requests: answers)
    assert service.predict(None, requests) == bytes(expected)


def test_a_message_is_read_with_one_call_of_the_kernel() -> None:
    class Counted:
        def __init__(self) -> None:
            self.rest, self.calls = predict([b'{"user_id": 1}'] * 16), 0

        def recv(self, size: int) -> bytes:
            self.calls += 1
            piece, self.rest = self.rest[:size], self.rest[size:]
            return piece

    ours, theirs = Counted(), Counted()
    taken_over()[0].retrieve_msg(ours)
    messages_module().retrieve_msg(theirs)
    assert (ours.calls, theirs.calls > 200) == (1, True)


def bytes_looked_at(message: bytes, piece_bytes: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many bytes the parser gets and the buffer copies, in all calls for one message."""
    looked_at = 0
    parse, fill = PartialBatch.parse, worker_socket.Buffered._fill

    def counted_parse(self: PartialBatch, buffer: bytes, at: int) -> int:
        nonlocal looked_at
        looked_at += len(buffer) - at
        return parse(self, buffer, at)

    def counted_fill(self: Any, end: int) -> None:
        nonlocal looked_at
        fill(self, end)
        looked_at += len(self._buffer)

    class Pieces:
        def __init__(self) -> None:
            self.at = 0

        def recv(self, size: int) -> bytes:
            piece = message[self.at : self.at + min(size, piece_bytes)]
            self.at += len(piece)
            return piece

    with monkeypatch.context() as patch:
        patch.setattr(PartialBatch, "parse", counted_parse)
        patch.setattr(worker_socket.Buffered, "_fill", counted_fill)
        _, batch = taken_over()[0].retrieve_msg(Pieces())
    assert sum(len(one.row["body"]) for one in batch) > 0.9 * len(message)
    return looked_at


@pytest.mark.parametrize("piece_bytes", [1_460, 65_536, 300_000])
def test_work_is_linear_in_the_size_of_the_message(piece_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for requests in (4, 32):
        message = predict([b"x" * 1_048_576] * requests)
        assert bytes_looked_at(message, piece_bytes, monkeypatch) < 8 * len(message)
    many = predict([b"x" * 20_000] * 500)
    assert bytes_looked_at(many, piece_bytes, monkeypatch) < 12 * len(many)


def test_an_error_of_the_handler_refuses_one_request_and_does_not_end_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    requests = [WorkerRequest(b"%d" % number, b"", {"body": b"secret"}) for number in range(4)]
    fine = WorkerResponse(200, b"{}", [])

    def answer(requests: Sequence[WorkerRequest]) -> list[WorkerResponse]:
        responses = []
        for request in requests:
            if request.server_id == b"1":
                raise ValueError(request.row)
            # HTTP has no status 999, and UTF-8 has no lone surrogate.
            odd = {b"2": WorkerResponse(999, b"{}", []), b"3": WorkerResponse(200, b"{}", [("a", "\ud800")])}
            responses.append(odd.get(request.server_id, fine))
        return responses

    _, service = taken_over(answer)
    failed = worker_socket.FAILED
    assert service.predict(None, requests) == response_message(requests, [fine, failed, failed, failed])
    assert json.loads(failed.body)["code"] == "internal"
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


def test_two_connections_do_not_mix() -> None:
    worker, _ = taken_over()
    pairs = [socket.socketpair() for _ in range(2)]
    for number, (_, theirs) in enumerate(pairs):
        theirs.sendall(predict([b"%d" % number]) * 2)
    found = [worker.retrieve_msg(ours)[1][0].row["body"] for _ in range(2) for ours, _ in pairs]
    assert found == [b"0", b"1", b"0", b"1"]
    for pair in pairs:
        for end in pair:
            end.close()


@pytest.mark.parametrize("length", [0, 1, 5, 40])
def test_the_end_of_the_connection_ends_the_worker(length: int) -> None:
    worker, _ = taken_over()
    ours, theirs = socket.socketpair()
    theirs.sendall(predict([b"{}"])[:length])
    theirs.close()
    with pytest.raises(SystemExit) as ended:
        worker.retrieve_msg(ours)
    assert ended.value.code == 0
    ours.close()


def test_an_invalid_block_of_headers_is_an_error() -> None:
    message = predict([b"{}"])[1:]
    batch = PartialBatch()
    assert (batch.parse(message, 0), batch.at) == (0, len(message))
    [one] = batch.requests
    assert header_fields(one.headers) == [(b"x-request-id", b"0"), (b"a", b"")]
    for broken in (one.headers[:-1], one.headers + b"\x00", b"\xff\xff\xff\xfe" + one.headers):
        with pytest.raises(ValueError, match="inside a field"):
            header_fields(broken)


def test_another_version_of_torchserve_is_not_changed() -> None:
    messages, worker = messages_module(), ModuleType("worker")
    worker.retrieve_msg = before = messages.retrieve_msg  # type: ignore[attr-defined]
    service = type("Service", (Service,), {})
    assert not take_over(worker, messages, service, "0.13.0", lambda requests: [])
    assert not take_over(worker, SimpleNamespace(), service, "0.12.0", lambda requests: [])  # type: ignore[arg-type]
    assert worker.retrieve_msg is before
    assert service.predict is Service.predict

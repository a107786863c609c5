"""Reading the headers of a request into a `Call`."""

import struct

import pytest

from handlers.churn_handler import _encoded, _fields
from handlers.protocol.call_headers import call_of
from handlers.protocol.messages import Call

JSON_LENGTH = "inference-header-content-length"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def block(headers: dict[str, str]) -> bytes:
    """The headers as TorchServe's frontend sends them to the worker."""
    texts = [text.encode() for header in headers.items() for text in header]
    return b"".join(struct.pack("!i", len(text)) + text for text in texts)


@pytest.mark.parametrize(
    ("headers", "call"),
    [
        ({"x-request-id": "one", "explain": "True", "host": "h"}, Call("one", True)),
        ({"X-Request-Id": "two", "explain": "False"}, Call("two")),
        ({"x-request-id": "three"}, Call("three", grpc=True)),
        ({"x-request-id": "line\nbreak", "explain": "False"}, Call("theirs")),
        ({"x-request-id": "ü", "explain": "False"}, Call("theirs")),
        ({"x-request-id": "x" * 129, "explain": "False"}, Call("theirs")),
        ({"a": "x-request-id", "b": "explain"}, Call("theirs", grpc=True)),
        ({}, Call("theirs", grpc=True)),
        ({"Content-Encoding": "gzip", "explain": "False"}, Call("theirs", encoding="gzip")),
        (
            {"Inference-Header-Content-Length": "12", "explain": "False"},
            Call("theirs", headers={JSON_LENGTH: "12"}),
        ),
        ({JSON_LENGTH: "-1", "explain": "False"}, Call("theirs", headers={JSON_LENGTH: "-1"})),
        ({JSON_LENGTH: "9" * 99, "explain": "False"}, Call("theirs", headers={JSON_LENGTH: "9" * 99})),
        (
            {"x-churn-rpc": "ModelInfer", "grpc-encoding": "gzip", "explain": "False"},
            Call("theirs", rpc="ModelInfer", grpc_encoding="gzip"),
        ),
        ({"traceparent": TRACE, "explain": "False"}, Call("theirs", traceparent=TRACE)),
        ({"X-Churn-Probe": "gateway", "explain": "False"}, Call("theirs", probe="gateway")),
    ],
)
def test_a_block_of_headers_is_read_like_torchserve_s_own_objects(
    headers: dict[str, str], call: Call
) -> None:
    assert call_of(_fields(block(headers)), "theirs") == call
    assert call_of(_encoded(headers), "theirs") == call


def test_an_invalid_block_counts_as_no_headers() -> None:
    assert call_of(_fields(b"\x00\x00\x00\x09abc"), "theirs") == Call("theirs")


@pytest.mark.parametrize(
    "sent",
    [
        "",
        TRACE.upper(),
        TRACE + "-x",
        TRACE.replace("00-", "ff-", 1),
        TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        TRACE.replace("00f067aa0ba902b7", "0" * 16),
        TRACE + "\r\nx: y",
    ],
)
def test_an_invalid_trace_context_is_ignored(sent: str) -> None:
    assert call_of(_encoded({"traceparent": sent, "explain": "False"}), "theirs").traceparent == ""

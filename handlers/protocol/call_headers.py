"""What the headers of a request say of it, as TorchServe passes them on: `Call` but for the body."""

import re
from collections.abc import Iterable

from handlers.identity import PROBE_HEADER
from handlers.protocol.messages import Call

SAFE_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
"""A line break, say, would end the header early, and TorchServe's answer with it."""
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context; what is none is as if it had not come."""
UNIX_TIME = re.compile(rb"[0-9]{1,12}\.[0-9]{1,9}")
_WANTED = {
    b"x-request-id",
    b"explain",
    b"content-encoding",
    b"inference-header-content-length",
    b"x-churn-rpc",
    b"grpc-encoding",
    b"traceparent",
    PROBE_HEADER.encode(),
    b"x-churn-received",
}


def call_of(headers: Iterable[tuple[bytes, bytes]], server_id: str) -> Call:
    """`server_id`: TorchServe's own id of the request, which stands in where the client gave none.

    TorchServe sets the header `explain` to True or False for each REST request and to nothing for gRPC, whose
    metadata it drops.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        lower = name.lower()
        if lower in _WANTED:
            found[lower] = value
    request_id = _text(found, b"x-request-id")
    explain = found.get(b"explain")
    if len(found) < 3 and not found.keys() - {b"x-request-id", b"explain"}:  # nearly every request
        given = request_id if SAFE_REQUEST_ID.fullmatch(request_id) else server_id
        return Call(given, explain == b"True", explain is None)
    traceparent = _text(found, b"traceparent")
    return Call(
        request_id=request_id if SAFE_REQUEST_ID.fullmatch(request_id) else server_id,
        explain=explain == b"True",
        grpc=explain is None,
        encoding=_text(found, b"content-encoding"),
        json_length=_length(found.get(b"inference-header-content-length")),
        rpc=_text(found, b"x-churn-rpc"),
        grpc_encoding=_text(found, b"grpc-encoding"),
        traceparent=traceparent if TRACEPARENT.fullmatch(traceparent) else "",
        probe=_text(found, PROBE_HEADER.encode()),
        received=_time(found.get(b"x-churn-received", b"")),
    )


def _text(found: dict[bytes, bytes], name: bytes) -> str:
    return found.get(name, b"").decode("utf-8", "replace")


def _time(value: bytes) -> float:
    return float(value) if UNIX_TIME.fullmatch(value) else 0.0


def _length(value: bytes | None) -> int | None:
    """-1 for what is no length, which every protocol refuses."""
    if value is None:
        return None
    return int(value) if value.isdigit() and len(value) < 10 else -1

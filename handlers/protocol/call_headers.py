"""Reads the headers of a request, as TorchServe passes them, into a `Call`."""

import re
from collections.abc import Iterable

from handlers.identity import PROBE_HEADER
from handlers.protocol.messages import NO_HEADERS, Call
from handlers.protocol.protocols import PROTOCOLS

SAFE_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
"""Visible ASCII only, since the id is sent back as a header: a line break would cut the answer."""
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context. Another value is ignored."""
UNIX_TIME = re.compile(rb"[0-9]{1,12}\.[0-9]{1,9}")
_OF_PROTOCOLS = {name.encode() for protocol in PROTOCOLS.values() for name in protocol.headers}
_WANTED = _OF_PROTOCOLS | {
    b"x-request-id",
    b"explain",
    b"content-encoding",
    b"x-churn-rpc",
    b"grpc-encoding",
    b"traceparent",
    PROBE_HEADER.encode(),
    b"x-churn-received",
}


def call_of(headers: Iterable[tuple[bytes, bytes]], server_id: str) -> Call:
    """What names and values of headers state; without an id of the client, the request id is `server_id`.

    TorchServe sets the header `explain` to True or False in each REST request. It does not set it for gRPC,
    whose metadata it drops.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        lower = name.lower()
        if lower in _WANTED:
            found[lower] = value
    request_id = _text(found, b"x-request-id")
    explain = found.get(b"explain")
    if len(found) < 3 and not found.keys() - {b"x-request-id", b"explain"}:  # as in most requests
        given = request_id if SAFE_REQUEST_ID.fullmatch(request_id) else server_id
        return Call(given, explain == b"True", explain is None)
    traceparent, of_protocol = _text(found, b"traceparent"), NO_HEADERS
    if not _OF_PROTOCOLS.isdisjoint(found):
        of_protocol = {name.decode(): _text(found, name) for name in found.keys() & _OF_PROTOCOLS}
    return Call(
        request_id=request_id if SAFE_REQUEST_ID.fullmatch(request_id) else server_id,
        explain=explain == b"True",
        grpc=explain is None,
        encoding=_text(found, b"content-encoding"),
        headers=of_protocol,
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

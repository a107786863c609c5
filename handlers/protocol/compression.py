"""Bodies that came compressed by gzip or deflate, as HTTP's Content-Encoding and gRPC's grpc-encoding say."""

import zlib

from handlers.protocol.messages import BadRequest, TooLarge, UnsupportedEncoding

_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's windowBits: +16 for gzip's own header. HTTP's deflate is zlib's format (RFC 9110, 8.4.1.2)."""
_RAW = -15
"""Some clients send deflate without zlib's header."""


def decompress(payload: bytes, encoding: str, header: str, limit: int) -> bytes:
    """`payload` as it was before `encoding`, which came in `header`.

    Raises UnsupportedEncoding for another method, TooLarge beyond `limit` bytes, which are never made, and
    BadRequest for bytes that are not of that method.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return payload
    if name not in _WINDOW:
        raise UnsupportedEncoding(f"{header}: {_shown(name)} is not read here; send gzip, deflate or neither")
    for window in (_WINDOW[name], _RAW) if name == "deflate" else (_WINDOW[name],):
        stream = zlib.decompressobj(window)
        try:
            content = stream.decompress(payload, limit + 1)
        except zlib.error:
            continue
        if len(content) > limit:
            raise TooLarge(f"body: more than {limit} bytes once it is decompressed")
        if stream.eof and not stream.unused_data:
            return content
        break
    raise BadRequest(f"body: not {name}, as the header {header} says; or it is cut short")


def _shown(name: str) -> str:
    """Of what a client sent only what can stand in a message."""
    return "".join(sign for sign in name[:20] if sign.isalnum() or sign in "-,") or "that"

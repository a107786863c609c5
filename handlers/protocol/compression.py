"""Decompresses bodies in gzip or deflate, named by HTTP's Content-Encoding or gRPC's grpc-encoding."""

import zlib

from handlers.protocol.messages import BadRequest, TooLarge, UnsupportedEncoding

_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Windowbits for zlib: +16 for gzip's own header. HTTP's deflate is zlib's format (RFC 9110, 8.4.1.2)."""
_RAW = -15
"""Some clients send deflate without zlib's header."""


def decompress(payload: bytes, encoding: str, header: str, limit: int) -> bytes:
    """The content of `payload`, which is compressed by `encoding`, the value of the header `header`.

    Raises UnsupportedEncoding for another method, TooLarge when the content has more than `limit` bytes (it
    is not decompressed further), and BadRequest for bytes that are not valid in that method.
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
    raise BadRequest(f"body: not {name}, which the header {header} states, or incomplete")


def _shown(name: str) -> str:
    """The part of a client's value that may be in a message."""
    return "".join(sign for sign in name[:20] if sign.isalnum() or sign in "-,") or "that"

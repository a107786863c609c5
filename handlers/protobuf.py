"""Protobuf's encoding (varint, 64-bit, length-delimited, 32-bit), read and written without its library.

https://protobuf.dev/programming-guides/encoding. A worker needs a few messages with a few fields each, and
importing the library takes time at its start. `store/wire.py` and `protocol/open_inference_grpc.py` define
what the fields mean.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Corrupt(ValueError):
    """The bytes are not a valid encoding."""


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and content of each field of a message, in order. Raises Corrupt for an invalid message."""
    position, end = 0, len(message)
    while position < end:
        tag, position = varint(message, position)
        number, kind = tag >> 3, tag & 7
        content: int | bytes
        if kind == VARINT:
            content, position = varint(message, position)
        else:
            size = {FIXED64: 8, FIXED32: 4}.get(kind)
            if kind == BYTES:
                size, position = varint(message, position)
            if size is None or number == 0 or position + size > end:
                raise Corrupt("not a protobuf message")
            content = message[position : position + size]
            position += size
        yield number, content


def varint(content: bytes, position: int) -> tuple[int, int]:
    """The number that begins at `position`, and the position after it. Raises Corrupt."""
    number = shift = 0
    for byte in content[position : position + 10]:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if number >= 2**64:
                break
            return number, position + shift // 7
    raise Corrupt("not a number")


def signed(number: int) -> int:
    """An int64 that was read as unsigned."""
    return number - 2**64 if number >= 2**63 else number


def varints(content: bytes) -> Iterator[int]:
    """The numbers of a packed field, unsigned. Raises Corrupt."""
    position, end = 0, len(content)
    while position < end:
        number, position = varint(content, position)
        yield number


def put_varint(number: int) -> bytes:
    """`number` as a varint; a negative one in 64 bits, as protobuf defines it."""
    number %= 2**64
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def put_bytes(field_number: int, content: bytes) -> bytes:
    """A field of text, bytes, a message or packed numbers; also an empty one."""
    return put_varint(field_number << 3 | BYTES) + put_varint(len(content)) + content


def put_text(field_number: int, text: str) -> bytes:
    """A field of text; nothing for an empty text, which is protobuf's default."""
    return put_bytes(field_number, text.encode()) if text else b""


def put_integers(field_number: int, numbers: Iterable[int]) -> bytes:
    """A packed field of varints."""
    return put_bytes(field_number, b"".join(map(put_varint, numbers)))


def put_doubles(field_number: int, numbers: Sequence[float]) -> bytes:
    """A packed field of doubles."""
    return put_bytes(field_number, struct.pack(f"<{len(numbers)}d", *numbers))

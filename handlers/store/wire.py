"""Reads the protobuf messages of Feast's online stores and registry without protobuf or Feast.

Layouts: feast/protos/feast/types/Value.proto; feast/infra/key_encoding_utils.py, version 3. The tests compare
each of them with Feast's own code.
"""

import struct
from datetime import UTC, datetime

from handlers.protobuf import Corrupt as Corrupt  # the readers catch it
from handlers.protobuf import fields as fields
from handlers.protobuf import signed, varint

STRING = 2  # feast.types.ValueType.STRING
KEY_VERSION = 3
"""The `entity_key_serialization_version` that `key_prefix` and `key_of` write."""

_INT64, _INT32, _DOUBLE, _FLOAT, _TEXT = 0x20, 0x18, 0x29, 0x35, 0x12
"""First byte of a Value of each type: field number * 8 + wire type."""

NAN = b")" + struct.pack("<d", float("nan"))
"""A Value with the double NaN."""


def key_prefix(join_key: str) -> bytes:
    """The beginning of every entity key for one join key of type string."""
    name = join_key.encode()
    return struct.pack("<III", 1, STRING, len(name)) + name + struct.pack("<I", STRING)


def key_of(prefix: bytes, value: str) -> bytes:
    """The entity key of one customer."""
    text = value.encode()
    return prefix + len(text).to_bytes(4, "little") + text


def value(content: bytes) -> int | float | str | None:
    """A Value of type int64, int32, double, float or string; None for an empty one, which is Feast's null.

    Raises Corrupt for everything else, also for lists and maps, because no feature has such a type.
    """
    if not content:
        return None
    shape, size = content[0], len(content)
    if shape == _INT64:
        return _whole(content)
    if shape == _DOUBLE and size == 9:
        return float(_DOUBLE_AT.unpack(content)[0])
    if shape == _TEXT:
        return _text(content)
    if shape == _FLOAT and size == 5:
        return float(_FLOAT_AT.unpack(content)[0])
    if shape == _INT32 and -(2**31) <= (number := _whole(content)) < 2**31:
        return number
    raise Corrupt("not a number and not a text")


def doubles(contents: list[bytes]) -> list[float] | None:
    """All values in one step if each is a double; else None."""
    joined = b"".join(contents)
    count = len(contents)
    if joined[::9] != b")" * count or set(map(len, contents)) != {9}:
        return None
    return list(struct.unpack("<" + "xd" * count, joined))


def timestamp(content: bytes) -> datetime:
    """A google.protobuf.Timestamp, to the microsecond as Feast rounds it. Raises Corrupt."""
    parts = {1: 0, 2: 0}
    for number, part in fields(content):
        if number not in parts or not isinstance(part, int):
            raise Corrupt("not a timestamp")
        parts[number] = part
    try:
        return datetime.fromtimestamp(signed(parts[1]) + parts[2] / 1_000_000_000.0, tz=UTC)
    except (OverflowError, OSError, ValueError):
        raise Corrupt("not a timestamp") from None


_DOUBLE_AT = struct.Struct("<xd")
_FLOAT_AT = struct.Struct("<xf")


def _whole(content: bytes) -> int:
    number, end = varint(content, 1)
    if end != len(content):
        raise Corrupt("not a whole number")
    return signed(number)


def _text(content: bytes) -> str:
    size, start = varint(content, 1)
    if start + size != len(content):
        raise Corrupt("not a text")
    try:
        return content[start:].decode("utf-8")
    except UnicodeDecodeError:
        raise Corrupt("not a text") from None

"""Tensor values as raw bytes, in the format of Triton's binary extension and of `raw_input_contents`.

Numbers are little-endian; a text is its length in four bytes, followed by its bytes in UTF-8.
"""

import struct
from collections.abc import Sequence
from typing import Any

from handlers.protocol.messages import BadRequest

_NUMBERS = {"INT64": "q", "FP64": "d"}
_LENGTH = struct.Struct("<I")


def pack(datatype: str, values: Sequence[Any]) -> bytes:
    """The bytes of `values`; `datatype` is INT64, FP64 or BYTES (texts)."""
    if datatype in _NUMBERS:
        return struct.pack(f"<{len(values)}{_NUMBERS[datatype]}", *values)
    texts = [value.encode() for value in values]
    return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))


def unpack(datatype: str, content: bytes, field_name: str) -> list[int] | list[str]:
    """The values in `content`; `datatype` is INT64 or BYTES. Raises BadRequest with the name of the field."""
    if datatype == "INT64":
        if len(content) % 8:
            raise BadRequest(f"{field_name}: {len(content)} raw bytes, expected 8 for each INT64")
        return list(struct.unpack(f"<{len(content) // 8}q", content))
    texts: list[str] = []
    position, end = 0, len(content)
    while position < end:
        begin = position + 4
        if begin > end:
            raise BadRequest(f"{field_name}: the raw bytes end inside the length of text {len(texts)}")
        (length,) = _LENGTH.unpack_from(content, position)
        position = begin + length
        if position > end:
            raise BadRequest(f"{field_name}: the raw bytes end inside text {len(texts)}")
        try:
            texts.append(content[begin:position].decode("utf-8"))
        except UnicodeDecodeError:
            raise BadRequest(f"{field_name}: text {len(texts)} is not UTF-8") from None
    return texts

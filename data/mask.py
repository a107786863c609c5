"""Replaces identifiers by keyed hashes: one way, and the same at every door that holds the key."""

import hashlib
import os
import secrets
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data.cell import parse
from data.config import DataConfig
from data.errors import DataError
from data.private_file import make_private, read_private
from data.workspace import Workspace
from handlers.identity import canonical_id, mask

SHORTEST_KEY = 32
"""Bytes of the text; a generated key has 64, which spell 256 random bits."""
REMEMBERED = 1_000_000
"""Customers whose masks are remembered from chunk to chunk, in some 200 MB."""

Halves = np.ndarray[Any, np.dtype[np.uint64]]


def load_key(config: DataConfig, files: Workspace) -> bytes:
    """The key: the text of the environment variable `mask_key_env`, else of the key file, made when absent.

    Raises DataError for a short key and for a key file that others may read. The key is in no message.
    """
    text = os.environ.get(config.mask_key_env)
    if text is not None:
        return _checked(text, f"the environment variable {config.mask_key_env}")
    if not files.mask_key.exists():
        _generate(files.mask_key)
    return _checked(read_private(files.mask_key, "mask key", DataError), str(files.mask_key))


class Masker:
    """Masks customers chunk by chunk; each distinct one is masked once while there is room to remember it."""

    def __init__(self, id_type: Literal["integer", "string"], key: bytes) -> None:
        self._id_type, self._key = id_type, key
        self._known: dict[int | str, bytes] = {}

    def halves(self, ids: pa.ChunkedArray) -> tuple[Halves, Halves]:
        """The masks of identifiers without nulls: 128-bit numbers in two halves, which sort like the text."""
        encoded = whole(ids).dictionary_encode()
        masks = b"".join(self._mask(value) for value in encoded.dictionary.to_pylist())
        numbers = np.frombuffer(masks, ">u8").astype(np.uint64).reshape(-1, 2)
        codes = encoded.indices.to_numpy()
        return numbers[codes, 0], numbers[codes, 1]

    def _mask(self, value: int | str) -> bytes:
        found = self._known.get(value)
        if found is None:
            text = mask(canonical_id(value, self._id_type), self._key)
            found = bytes.fromhex(text.removeprefix("u_"))
            if len(self._known) < REMEMBERED:
                self._known[value] = found
        return found


def spelled(high: Halves, low: Halves) -> pa.Array:
    """The text of masks that come in halves."""
    numbers = np.stack([high, low], axis=1).astype(">u8")
    texts = np.frombuffer(numbers.tobytes().hex().encode(), "S32").astype("U32")
    return pc.binary_join_element_wise("u_", pa.array(texts, pa.string()), "")


def mask_texts(texts: pa.ChunkedArray, id_type: Literal["integer", "string"], key: bytes) -> pa.Array:
    """The masks of identifiers as they are written; null where one cannot be read."""
    ids = parse.identifiers(texts, id_type).to_pylist()
    masks = [None if value is None else mask(canonical_id(value, id_type), key) for value in ids]
    return pa.array(masks, pa.string())


def keyed_numbers(texts: pa.ChunkedArray, key: bytes) -> tuple[Halves, Halves]:
    """References such as order numbers as keyed 128-bit hashes (SipHash twice) in two halves; null is 0, 0.

    Equal references have equal hashes, and nobody without the key can tell which reference one is of.
    """
    values = whole(texts).fill_null("").to_numpy(zero_copy_only=False)
    present = whole(texts).is_valid().to_numpy(zero_copy_only=False)
    halves = []
    for half in (b"1", b"2"):
        secret = hashlib.sha256(b"reference" + half + key).hexdigest()[:16]
        hashes = pd.util.hash_array(values.astype(object), hash_key=secret, categorize=False)
        halves.append(np.where(present, np.maximum(hashes, 1), 0).astype(np.uint64))
    return halves[0], halves[1]


def whole(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array, which `combine_chunks` gives in most versions of Arrow only."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _generate(path: Path) -> None:
    make_private(path, secrets.token_hex(32) + "\n")


def _checked(text: str, where: str) -> bytes:
    key = text.strip().encode()
    if len(key) < SHORTEST_KEY:
        raise DataError(
            f"{where}: the mask key has {len(key)} bytes, fewer than {SHORTEST_KEY};"
            " make one with python -c 'import secrets; print(secrets.token_hex(32))'"
        )
    return key

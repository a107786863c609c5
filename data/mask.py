"""Replaces identifiers by keyed one-way hashes, which are equal in every process that has the key."""

import hashlib
import os
import secrets
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import DataError
from core.private_file import make_private, read_private
from core.workspace import Workspace
from data.cell import parse
from data.config import DataConfig
from handlers.identity import canonical_id, mask

MIN_KEY_BYTES = 32
"""Minimum length in bytes. A generated key has 64 hexadecimal digits, which are 256 random bits."""
MAX_CACHED_MASKS = 1_000_000
"""Customers whose masks are cached across chunks, in about 200 MB."""

Halves = np.ndarray[Any, np.dtype[np.uint64]]


def load_key(config: DataConfig, files: Workspace) -> bytes:
    """Return the key from the environment variable `mask_key_env`, else from the key file, created when
    absent.

    Raises DataError for a short key, and for a key file that other users may read. No message shows the key.
    """
    text = os.environ.get(config.mask_key_env)
    if text is not None:
        return _checked(text, f"the environment variable {config.mask_key_env}")
    if not files.mask_key.exists():
        _generate(files.mask_key)
    return _checked(read_private(files.mask_key, "mask key", DataError), str(files.mask_key))


class Masker:
    """Masks customers in chunks. Each distinct customer is masked once, as long as the cache has room."""

    def __init__(self, id_type: Literal["integer", "string"], key: bytes) -> None:
        self._id_type, self._key = id_type, key
        self._cached: dict[int | str, bytes] = {}

    def halves(self, ids: pa.ChunkedArray) -> tuple[Halves, Halves]:
        """Return the masks of [rows] identifiers without nulls, as two uint64 halves [rows] of 128-bit
        numbers.

        They have the same order as the masks' text.
        """
        encoded = as_one_array(ids).dictionary_encode()
        masks = b"".join(self._mask(value) for value in encoded.dictionary.to_pylist())
        numbers = np.frombuffer(masks, ">u8").astype(np.uint64).reshape(-1, 2)
        codes = encoded.indices.to_numpy()
        return numbers[codes, 0], numbers[codes, 1]

    def _mask(self, value: int | str) -> bytes:
        found = self._cached.get(value)
        if found is None:
            text = mask(canonical_id(value, self._id_type), self._key)
            found = bytes.fromhex(text.removeprefix("u_"))
            if len(self._cached) < MAX_CACHED_MASKS:
                self._cached[value] = found
        return found


def masks_as_text(high: Halves, low: Halves) -> pa.Array:
    """The text of masks that are given as two halves."""
    numbers = np.stack([high, low], axis=1).astype(">u8")
    texts = np.frombuffer(numbers.tobytes().hex().encode(), "S32").astype("U32")
    return pc.binary_join_element_wise("u_", pa.array(texts, pa.string()), "")


def mask_texts(texts: pa.ChunkedArray, id_type: Literal["integer", "string"], key: bytes) -> pa.Array:
    """The masks of identifiers given as text; null for an identifier that cannot be read."""
    ids = parse.identifiers(texts, id_type).to_pylist()
    masks = [None if value is None else mask(canonical_id(value, id_type), key) for value in ids]
    return pa.array(masks, pa.string())


def keyed_numbers(texts: pa.ChunkedArray, key: bytes) -> tuple[Halves, Halves]:
    """Keyed 128-bit hashes (SipHash twice) of references such as order numbers, in two halves; null is 0, 0.

    Equal references have equal hashes. Without the key, a reference cannot be derived from its hash.
    """
    values = as_one_array(texts).fill_null("").to_numpy(zero_copy_only=False)
    present = as_one_array(texts).is_valid().to_numpy(zero_copy_only=False)
    halves = []
    for half in (b"1", b"2"):
        secret = hashlib.sha256(b"reference" + half + key).hexdigest()[:16]
        hashes = pd.util.hash_array(values.astype(object), hash_key=secret, categorize=False)
        halves.append(np.where(present, np.maximum(hashes, 1), 0).astype(np.uint64))
    return halves[0], halves[1]


def as_one_array(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array. `combine_chunks` alone does not return one in every version of Arrow."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _generate(path: Path) -> None:
    make_private(path, secrets.token_hex(32) + "\n")


def _checked(text: str, where: str) -> bytes:
    key = text.strip().encode()
    if len(key) < MIN_KEY_BYTES:
        raise DataError(
            f"{where}: the mask key has {len(key)} bytes, fewer than {MIN_KEY_BYTES};"
            " make one with python -c 'import secrets; print(secrets.token_hex(32))'"
        )
    return key

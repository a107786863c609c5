"""Identifiers leave the raw world here: keyed, one way, the same at every door that holds the key."""

import os
import secrets
from pathlib import Path
from typing import Literal

import pyarrow as pa

from data import parse
from data.clean import Cleaned
from data.config import DataConfig, TableSource
from data.errors import DataError
from data.private_file import make_private, read_private
from data.workspace import Workspace
from handlers.identity import canonical_id, mask

SHORTEST_KEY = 32
"""Bytes of the text; a generated key has 64, which spell 256 random bits."""


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


def mask_ids(ids: pa.ChunkedArray, id_type: Literal["integer", "string"], key: bytes) -> pa.DictionaryArray:
    """Masked strings behind int32 codes, each distinct identifier masked once; null stays null."""
    encoded = ids.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    masked = [mask(canonical_id(value, id_type), key) for value in encoded.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(encoded.indices, pa.array(masked, pa.string()))


def mask_rejected(cleaned: Cleaned, source: TableSource, key: bytes) -> pa.Table:
    """Rejected rows without raw identifiers; one that cannot be read as such is dropped rather than shown."""
    table = cleaned.rejected
    for name, id_type in (("user_id", source.user_id_type), ("transaction_id", "string")):
        if theirs := source.columns.get(name):
            at = table.column_names.index(theirs)
            masked = mask_ids(parse.identifiers(table[theirs], id_type), id_type, key)
            table = table.set_column(at, theirs, masked.cast(pa.string()))
    return table


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

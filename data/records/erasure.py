"""The list of erased customers, and the removal of their rows from files.

The list contains no identifier, not even a masked one. It contains keyed hashes of masked identifiers: an
ingest can recognise an erased customer in the source, but the list alone does not identify anyone.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.workspace import write_atomically


class Erased:
    """The list in `file`, which the constructor reads. `key` is the mask key."""

    def __init__(self, file: Path, key: bytes) -> None:
        self._file, self._key = file, key
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
        self._known = frozenset(known)

    @property
    def has_entries(self) -> bool:
        return bool(self._known)

    def add(self, masked: Iterable[str]) -> None:
        known = self._known | {self._mark(user_id) for user_id in masked}
        write_atomically(self._file, json.dumps(sorted(known), indent=1))
        self._known = frozenset(known)

    def without(self, table: pa.Table, masked: pa.Array) -> pa.Table:
        """Return the rows of `table` whose customer is not on the list. `masked` holds the customer of each
        row; rows with null are retained."""
        if not self._known:
            return table
        encoded = masked.dictionary_encode()
        retained = [
            user_id is None or self._mark(user_id) not in self._known
            for user_id in encoded.dictionary.to_pylist()
        ]
        return table.filter(pc.fill_null(pa.array(retained, pa.bool_()).take(encoded.indices), True))

    def _mark(self, masked: str) -> str:
        return hmac.digest(self._key, b"erased:" + masked.encode(), "sha256").hex()


def remove_rows(file: Path, masked: Sequence[str]) -> int:
    """Rewrite the Parquet `file` without the rows in which a text column is one of `masked`.

    Returns how many rows were removed. A file without such rows is not changed; else it is replaced
    atomically.
    """
    with pq.ParquetFile(file) as content:
        columns = [field.name for field in content.schema_arrow if pa.types.is_string(field.type)]
        groups = range(content.num_row_groups)
        if not any(count_rows(content.read_row_group(group, columns), masked) for group in groups):
            return 0
        partial, removed = file.with_name(f".{file.name}.partial"), 0
        try:
            with pq.ParquetWriter(partial, content.schema_arrow, compression="zstd") as writer:
                for group in groups:
                    table = content.read_row_group(group)
                    rest = table.filter(pc.invert(_rows_of(table, masked)))
                    removed += table.num_rows - rest.num_rows
                    writer.write_table(rest)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    return removed


def count_rows(table: pa.Table, masked: Sequence[str]) -> int:
    """The number of rows in which a text column is one of `masked`."""
    return int(pc.sum(_rows_of(table, masked)).as_py() or 0)


def fingerprint(masked: str) -> str:
    """The customer's name in a proof of erasure. It can be computed from the identifier and the mask key."""
    return hashlib.sha256(masked.encode()).hexdigest()


def _rows_of(table: pa.Table, masked: Sequence[str]) -> pa.ChunkedArray:
    values = pa.array(list(masked), pa.string())
    found = pa.chunked_array([pa.repeat(False, table.num_rows)])
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if pa.types.is_string(kind):
            found = pc.or_(found, pc.is_in(table[name], values))
    return found

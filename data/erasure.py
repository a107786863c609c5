"""Customers who are to be forgotten: the list that keeps them out of later ingests, and files without them.

The list holds no identifier, also no masked one: a keyed hash of the masked identifier, so that ingest can
recognise a customer who comes again in the source and nobody can read from the list who it was.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.workspace import write_atomically


@dataclass(frozen=True)
class Erased:
    """The list of one workspace."""

    file: Path
    key: bytes
    """The mask key."""

    def add(self, masked: Iterable[str]) -> None:
        known = self._read() | {self._mark(user_id) for user_id in masked}
        write_atomically(self.file, json.dumps(sorted(known), indent=1))

    def among(self, masked: pa.Array) -> pa.Array:
        """Which of the masked identifiers are on the list; bool, null where the identifier is null."""
        known = self._read()
        if not known:
            return pa.repeat(False, len(masked))
        encoded = masked.dictionary_encode()
        listed = [
            user_id is not None and self._mark(user_id) in known for user_id in encoded.dictionary.to_pylist()
        ]
        return pa.array(listed, pa.bool_()).take(encoded.indices)

    def _mark(self, masked: str) -> str:
        return hmac.digest(self.key, b"erased:" + masked.encode(), "sha256").hex()

    def _read(self) -> set[str]:
        if not self.file.is_file():
            return set()
        return set(json.loads(self.file.read_text(encoding="utf-8")))


def remove_rows(file: Path, masked: Iterable[str]) -> int:
    """Write the Parquet `file` anew without the rows in which a text column is one of `masked`.

    Returns how many those were. A file without such rows is not touched; the new one replaces it in one step.
    """
    values = pa.array(list(masked), pa.string())
    with pq.ParquetFile(file) as content:
        columns = [field.name for field in content.schema_arrow if _is_text(field.type)]
        if not columns or not any(
            _hit(content.read_row_group(n, columns), values) for n in range(content.num_row_groups)
        ):
            return 0
        partial = file.with_name(f".{file.name}.partial")
        removed = 0
        try:
            with pq.ParquetWriter(partial, content.schema_arrow, compression="zstd") as writer:
                for number in range(content.num_row_groups):
                    group = content.read_row_group(number)
                    found = _matching(group, columns, values)
                    removed += pc.sum(found).as_py() or 0
                    writer.write_table(group.filter(pc.invert(found)))
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    return removed


def _hit(group: pa.Table, values: pa.Array) -> bool:
    return bool(pc.any(_matching(group, group.column_names, values)).as_py())


def _matching(group: pa.Table, columns: list[str], values: pa.Array) -> pa.ChunkedArray:
    found = pa.chunked_array([pa.repeat(False, group.num_rows)])
    for name in columns:
        column = group[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.string())
        found = pc.or_(found, pc.is_in(column, values))
    return found


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))


def fingerprint(masked: str) -> str:
    """How a proof of erasure names the customer: who has the identifier and the mask key can compute it."""
    return hashlib.sha256(masked.encode()).hexdigest()

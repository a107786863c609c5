"""Writes rejected rows with the reason: only declared columns, with masked identifiers."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from data.mask import mask_texts, masks_as_text
from data.prepare.clean import Cleaner, Rejected
from data.prepare.tally import DUPLICATE
from data.records.erasure import Erased

IDENTIFIERS = ("user_id", "transaction_id", "order_id")
RESERVED_NAMES = ("row", "reason")


class RejectedWriter:
    """Writes a Parquet file of the cells as read, under the source's names, then `row` and `reason`."""

    def __init__(self, file: Path, cleaner: Cleaner, key: bytes, erased: Erased) -> None:
        self._cleaner, self._key, self._erased = cleaner, key, erased
        source = cleaner.source
        ours = [*source.columns, *(n for n in ("user_id", *source.computed) if n in source.given)]
        self._names = list(dict.fromkeys([*ours, *cleaner.further.names]))
        self._schema = pa.schema([*((n, pa.string()) for n in self._shown()), _ROW, ("reason", pa.string())])
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")
        self.rows = 0
        self.duplicates = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def add(self, rejected: Rejected) -> None:
        if len(rejected.places):
            cells = [self._cell(rejected.cells, name) for name in self._names]
            self._write(cells, rejected.places, rejected.reasons)

    def add_copies(self, copies: pa.Table) -> None:
        """Add copies (`high`, `low`, `place`) without cells, which are equal to those of the earlier row."""
        if not copies.num_rows:
            return
        self.duplicates += copies.num_rows
        masks = masks_as_text(copies["high"].to_numpy(), copies["low"].to_numpy())
        nothing = pa.nulls(copies.num_rows, pa.string())
        cells = [masks if name == "user_id" else nothing for name in self._names]
        self._write(cells, copies["place"], pa.repeat(DUPLICATE, copies.num_rows))

    def _write(self, cells: Sequence[pa.Array], places: pa.Array, reasons: pa.Array) -> None:
        table = pa.table([*cells, places, reasons], self._schema)
        table = self._erased.without(table, table.column(self._names.index("user_id")).combine_chunks())
        self._writer.write_table(table)
        self.rows += table.num_rows

    def _cell(self, cells: pa.Table, name: str) -> pa.Array:
        """The cells of a column; identifiers are masked. An identifier that cannot be read becomes null."""
        if name not in IDENTIFIERS or name not in self._cleaner.source.given:
            return cells[name]
        id_type = self._cleaner.source.user_id_type if name == "user_id" else "string"
        return mask_texts(cells[name], id_type, self._key)

    def _shown(self) -> list[str]:
        """The source's names. Where two are equal, the standard name is added."""
        shown: list[str] = []
        for name in self._names:
            theirs = self._cleaner.source.columns.get(name, name)
            if theirs in RESERVED_NAMES:
                theirs = f"{theirs} (source)"
            shown.append(theirs if theirs not in shown else f"{theirs} ({name})")
        return shown


_ROW = pa.field("row", pa.int64())

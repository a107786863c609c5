"""Buffers rows between cleaning and arranging: masked, encoded as numbers, in ranges of customers."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from data.cell import parse
from data.mask import Masker, keyed_numbers, masks_as_text
from data.prepare.arrange import row_hashes
from data.prepare.clean import Cleaned, Cleaner
from data.prepare.further import FurtherColumns
from data.prepare.staging import Buckets
from data.prepare.transactions import Repeated, find_repeated
from data.records.erasure import Erased
from data.records.folder import moment_of
from data.source.columns import STANDARD_COLUMNS

ARROW = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}
FURTHER = "+"
"""Prefix of further columns in a staged table, which prevents clashes with the standard columns."""


class Stage:
    """Collects the cleaned chunks of a source. No raw identifier is written to `folder`."""

    def __init__(self, folder: Path, cleaner: Cleaner, key: bytes, erased: Erased) -> None:
        self._cleaner, self._key, self._erased = cleaner, key, erased
        self._masker = Masker(cleaner.source.user_id_type, key)
        self._rows = Buckets(folder / "rows", "high")
        self._references = Buckets(folder / "references", "reference")
        self.rows = 0

    def add(self, cleaned: Cleaned) -> None:
        records = cleaned.records
        if not records.num_rows:
            return
        high, low = self._masker.halves(records["user_id"])
        moment = records[moment_of(records.column_names)]
        columns = {"high": high, "low": low, "time": moment.cast(pa.int64()), "place": cleaned.places}
        columns |= {name: records[name] for name in _VALUES if name in records.column_names}
        columns |= {FURTHER + name: records[name] for name in self._cleaner.further.names}
        if "order_id" in records.column_names:
            order = keyed_numbers(records["order_id"], self._key)
            columns["order_high"], columns["order_low"] = order
        if "transaction_id" in records.column_names:
            columns["reference"], reference_low = keyed_numbers(records["transaction_id"], self._key)
        table = pa.table(columns)
        if "reference" in columns:
            compared = {"reference": table["reference"], "reference_low": reference_low}
            known = pa.table({**compared, "hash": row_hashes(table), "place": table["place"]})
            self._references.add(known.filter(pa.array(columns["reference"] != 0)))
        if self._erased.has_entries:
            table = self._erased.without(table, masks_as_text(high, low))
        self.rows += table.num_rows
        self._rows.add(table)

    def repeated_transactions(self) -> Repeated:
        """The repeated transactions among all rows. It is called once, before `ranges`."""
        return find_repeated(self._references.ranges())

    def ranges(self) -> Iterator[pa.Table]:
        """Yield rows by ranges of customers. All chunks together decide the types of further columns."""
        for table in self._rows.ranges():
            yield _typed(table, self._cleaner.further)

    def schema(self) -> pa.Schema:
        """The schema of the records."""
        further = self._cleaner.further
        types = {**_TYPES, **{name: ARROW[further.kind(name)] for name in further.names}}
        names = (*STANDARD_COLUMNS[self._cleaner.config.shape], *further.names)
        return pa.schema([(name, types[name]) for name in names])


_VALUES = ("amount", "quantity", "is_return", "target")
_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("timestamp", "event_timestamp"), parse.MOMENT),
    **dict.fromkeys(("amount", "quantity"), pa.float64()),
    "user_id": pa.string(),
    "is_return": pa.bool_(),
    "target": pa.int8(),
}


def _typed(table: pa.Table, further: FurtherColumns) -> pa.Table:
    for name in further.names:
        at = table.column_names.index(FURTHER + name)
        column = table.column(at)
        if column.type != ARROW[further.kind(name)]:
            table = table.set_column(at, FURTHER + name, further.convert(name, column))
    return table

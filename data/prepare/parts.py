"""Writes arranged rows as parts of the records. Each part has an index for the comparison with deliveries."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.cell import parse
from data.mask import masks_as_text
from data.prepare.hashes import Numbers
from data.prepare.stage import FURTHER
from data.records.folder import moment_of

ROWS_A_PART = 500_000
"""Minimum rows of a part, except the last one. Ranges of customers are not divided."""
ROWS_A_GROUP = 250_000

RECORDS, INDEX, CUSTOMERS = "records", "index", "customers"
"""Folders of a version, with a file for each part in each. `index` holds `hash` and `key` of each row, in the
order of the rows. `customers` holds the upper halves of the masks of customers with a purchase."""


@dataclass(frozen=True)
class Part:
    """A part as described in the manifest."""

    name: str
    rows: int
    sha256: str
    first: int
    """Earliest and latest time of a row, in microseconds."""
    last: int

    def record(self) -> dict[str, Any]:
        return asdict(self)


class PartWriter:
    """Writes ranges, added in ascending order, as parts `<prefix>-00000.parquet`, ..."""

    def __init__(self, version: Path, prefix: str, schema: pa.Schema) -> None:
        self._version, self._prefix, self._schema = version, prefix, schema
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self.parts: list[Part] = []
        for folder in (RECORDS, INDEX, CUSTOMERS):
            (version / folder).mkdir(exist_ok=True)

    def add(self, rows: pa.Table) -> None:
        """Add rows as `arrange` returns them."""
        self._waiting.append(rows)
        self._rows += rows.num_rows
        if self._rows >= ROWS_A_PART:
            self._write()

    def close(self) -> list[Part]:
        if self._rows:
            self._write()
        return self.parts

    def _write(self) -> None:
        rows = pa.concat_tables(self._waiting)
        self._waiting, self._rows = [], 0
        name = f"{self._prefix}-{len(self.parts):05d}.parquet"
        records = as_records(rows, self._schema)
        index = rows.select(["hash", "key"])
        self.parts.append(write_part(self._version, name, records, index, purchasers(rows)))


def as_records(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Convert arranged rows to the names and types of the records."""
    moment = moment_of(schema.names)
    columns = {"user_id": _user_ids(rows), moment: rows["time"].cast(pa.timestamp("us")).cast(parse.MOMENT)}
    for name in schema.names:
        if name not in columns:
            columns[name] = rows[name if name in rows.column_names else FURTHER + name]
    return pa.table({name: columns[name] for name in schema.names}, schema)


def purchasers(rows: pa.Table) -> Numbers:
    """The upper halves of the masks of customers with at least one row that is not a return."""
    high = rows["high"].to_numpy()
    if "is_return" in rows.column_names:
        high = high[~rows["is_return"].to_numpy()]
    return np.unique(high)


def write_part(version: Path, name: str, records: pa.Table, index: pa.Table, customers: Numbers) -> Part:
    file = version / RECORDS / name
    pq.write_table(
        records,
        file,
        compression="zstd",
        row_group_size=ROWS_A_GROUP,
        dictionary_pagesize_limit=16_000_000,  # room for all masks of a row group, which are long and repeat
    )
    pq.write_table(
        index, version / INDEX / name, compression="none", use_dictionary=False, row_group_size=ROWS_A_GROUP
    )
    pq.write_table(pa.table({"high": customers}), version / CUSTOMERS / name, use_dictionary=False)
    times = pc.min_max(records[moment_of(records.column_names)].cast(pa.int64())).as_py()
    return Part(name, records.num_rows, sha256(file), times["min"], times["max"])


def customers_of(version: Path, parts: Iterable[Part]) -> Numbers:
    """Upper halves of the masks of all customers with a purchase in these parts, ascending."""
    tables = [pq.read_table(version / CUSTOMERS / part.name)["high"].to_numpy() for part in parts]
    found: Numbers = np.unique(np.concatenate([np.array([], np.uint64), *tables]))
    return found


def digest_of(parts: Sequence[Part]) -> str:
    """sha256 of the records: that of a single part, or of the digests of all parts in their order."""
    if len(parts) == 1:
        return parts[0].sha256
    return hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _user_ids(rows: pa.Table) -> pa.Array:
    """The masks as text. Each customer's mask is converted once."""
    high, low = rows["high"].to_numpy(), rows["low"].to_numpy()
    changes = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    codes = np.concatenate([[0], np.cumsum(changes)]).astype(np.int32)
    masks = masks_as_text(high[starts], low[starts])
    return pa.DictionaryArray.from_arrays(pa.array(codes), masks).cast(pa.string())

"""Reads a source into parts of records: cleaned, masked, without copies, sorted by customer and time."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import DataError
from core.workspace import Workspace
from data.prepare.arrange import Rules, arrange
from data.prepare.clean import Cleaner
from data.prepare.parts import Part, PartWriter
from data.prepare.rejected import RejectedWriter
from data.prepare.stage import Stage
from data.prepare.transactions import refuse_differing
from data.records.erasure import Erased
from data.source.readers import public_uri
from data.source.sources import open_source

Progress = Callable[[str], None]
STAGE = "stage"
"""Folder for rows that are buffered on disk. It is removed at the end."""


class Intake:
    """Reads one source into `folder`, with its rejected rows: first `read`, then `write_parts`."""

    def __init__(
        self, folder: Path, files: Workspace, cleaner: Cleaner, key: bytes, progress: Progress
    ) -> None:
        erased = Erased(files.erased, key)
        self.rejected = RejectedWriter(folder / files.rejected.name, cleaner, key, erased)
        self._folder = folder
        self._cleaner = cleaner
        self._stage = Stage(folder / STAGE, cleaner, key, erased)
        self._uri = public_uri(cleaner.source)
        self._progress = progress

    def __enter__(self) -> Self:
        self.rejected.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rejected.__exit__(kind, error, trace)
        shutil.rmtree(self._folder / STAGE, ignore_errors=True)

    @property
    def schema(self) -> pa.Schema:
        """The schema of the records, after `read`."""
        return self._stage.schema()

    def read(self, known: Mapping[str, Any] | None = None) -> str:
        """Read and clean the whole source; return the sha256 of the bytes that were read.

        For a delivery, `known` is the manifest of the records to which it is appended.
        Raises DataError when too many of its rows cannot be used.
        """
        cleaner, tally = self._cleaner, self._cleaner.tally
        self._progress(f"reading {self._uri}")
        wanted = tuple(name for name in cleaner.further.names if name not in cleaner.source.computed)
        reading = open_source(cleaner.config, wanted)
        for cleaned in cleaner.chunks(reading.chunks()):
            self._stage.add(cleaned)
            self.rejected.add(cleaned.rejected)
            self._progress(f"cleaning: {tally.rows + tally.left_out:,} rows of {self._uri}")
        if known is None:
            cleaner.target.check()
        else:
            cleaner.target.check_delivery(known.get("stayed", []))
        limit = cleaner.config.max_rejected_share
        tally.check(self._uri, limit, self._stage.rows)
        cleaner.further.check(self._uri, limit)
        return reading.sha256

    def write_parts(self, prefix: str) -> list[Part]:
        """Write the rows as parts `<prefix>-00000.parquet`, ..., one range of customers at a time.

        Copies are added to the rejected rows. Raises DataError for copies when `duplicates` is `refuse`.
        """
        writer = PartWriter(self._folder, prefix, self.schema)
        for rows in self._arranged():
            writer.add(rows)
        return writer.close()

    def _arranged(self) -> Iterator[pa.Table]:
        source, rejected = self._cleaner.source, self.rejected
        by_reference = "transaction_id" in source.given
        transactions = self._stage.repeated_transactions()
        refuse_differing(transactions, self._uri)
        copies = transactions.copies if source.duplicates != "keep" else transactions.copies[:0]
        rules = Rules(
            labelled=self._cleaner.config.shape == "labelled",
            find_copies=source.duplicates != "keep" and not by_reference,
            add_up_orders=source.group_by is not None,
        )
        done, first = 0, int(copies[0]) if len(copies) else 0
        for table in self._stage.ranges():
            done += table.num_rows
            if len(copies):
                is_copy = pa.array(table["place"].to_pandas().isin(copies))
                rejected.add_copies(table.select(["high", "low", "place"]).filter(is_copy))
                table = table.filter(pc.invert(is_copy))
            result = arrange(table, rules)
            rejected.add_copies(result.copies)
            if result.copies.num_rows:
                here = int(pc.min(result.copies["place"]).as_py())
                first = min(first or here, here)
            self._progress(f"sorting: {done:,} of {self._stage.rows:,} rows")
            yield result.rows
        if rejected.duplicates and source.duplicates == "refuse":
            raise self._repeated(rejected.duplicates, first)

    def _repeated(self, rows: int, first: int) -> DataError:
        source, labelled = self._cleaner.source, self._cleaner.config.shape == "labelled"
        ways = "drop" if labelled else "drop or keep"
        if labelled:
            dated = "event_timestamp" in source.given
            equal = (
                "have the user_id and the time of a row above" if dated else "have the user_id of a row above"
            )
            if not dated:
                ways += ", or map data.source.columns.event_timestamp if a customer has a row for each month"
        elif "transaction_id" in source.given:
            equal = "repeat a row above with the same transaction_id"
        else:
            equal = "equal a row above in every column that is read"
        if source.group_by:
            ways = "keep if lines of one order may be alike, or to drop"
        return DataError(
            f"{self._uri}: {rows:,} rows {equal} (first: row {first}); remove them or set"
            f" data.source.duplicates to {ways}"
        )

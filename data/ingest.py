"""Turns a source into validated, masked records. If a step fails, nothing is written.

The source is read in chunks. Each chunk is filtered, computed, cleaned, masked and divided into ranges of
customers. For each range, copies are removed, lines are added up to orders, and rows are sorted and written.
Memory is bounded by a few chunks and one range, for a source of any length.
"""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock, Timeout

from core.errors import DataError
from core.workspace import Workspace, remove_leftovers
from data.config import DataConfig, TableSource, utc_text
from data.judge.judged import judged
from data.judge.validate import Judged, failed, validate
from data.manifest import describe, write_json
from data.mask import load_key
from data.prepare.arrange import Rules, arrange
from data.prepare.clean import Cleaner, check_usable
from data.prepare.parts import PartWriter, customers_of
from data.prepare.rejected import RejectedWriter
from data.prepare.stage import Stage
from data.prepare.transactions import refuse_differing
from data.records.erasure import Erased
from data.records.versions import current_manifest, new_version
from data.source.columns import columns_to_read
from data.source.readers import public_uri
from data.source.sources import as_table, open_source

Progress = Callable[[str], None]
STAGE = "stage"
"""Folder of an unfinished version for rows that are buffered on disk."""


def ingest(
    config: DataConfig,
    files: Workspace,
    as_of: datetime,
    progress: Progress = lambda message: None,
    further: Collection[str] = (),
) -> dict[str, Any]:
    """Write records, rejected rows, validation and manifest as a new version; return the manifest.

    `as_of` (with a time zone) is the present: rows at or after it are in the future and fail the validation.
    `further` are the columns of the source that features read. Raises DataError, with the details in its
    `table`, for a source that cannot be used. The current version then stays unchanged.
    """
    key = load_key(config, files)
    source = as_table(config)
    cleaner, erased = Cleaner(config, source, further), Erased(files.erased, key)
    with write_lock(files), new_version(files, config.keep_versions) as version:
        _report_dropped_deliveries(files, progress)
        stage = Stage(version / STAGE, cleaner, key, erased)
        with RejectedWriter(version / files.rejected.name, cleaner, key, erased) as rejected:
            input_sha256 = read_into(stage, cleaner, rejected, further, progress)
            writer = PartWriter(version, "base", stage.schema())
            for rows in arranged_ranges(stage, cleaner, rejected, progress):
                writer.add(rows)
        parts = writer.close()
        shutil.rmtree(version / STAGE, ignore_errors=True)
        tally = cleaner.tally
        outcomes = judge(judged(version, parts, stage.schema()), config, source, as_of, progress)
        counts = {
            "source_rows": tally.rows + tally.left_out,
            "left_out_rows": tally.left_out,
            "rejected_rows": rejected.rows,
            "duplicate_rows": rejected.duplicates,
        }
        manifest = describe(
            config,
            key,
            schema=stage.schema(),
            parts=parts,
            customers=len(customers_of(version, parts)),
            input_sha256=input_sha256,
            counts=counts,
            stayed=cleaner.target.stayed,
        )
        write_json(version / files.validation.name, suite_record(as_of, outcomes))
        write_json(version / files.manifest.name, manifest)
    return manifest


def _report_dropped_deliveries(files: Workspace, progress: Progress) -> None:
    """Report that a full ingest drops the appended deliveries, which have to be appended again."""
    if files.manifest.is_file() and (deliveries := current_manifest(files).get("deliveries")):
        progress(
            f"{len(deliveries)} appended deliveries are not part of the new version; append them again."
            " The old version is still stored (churn data versions)"
        )


@contextmanager
def write_lock(files: Workspace) -> Iterator[None]:
    """Hold the lock on the versions of `files`. Raises DataError when another process holds it."""
    files.data.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(files.data.parent / ".lock", blocking=False):
            remove_leftovers(files.data)
            yield
    except Timeout:
        raise DataError(f"{files.data.parent}: another ingest is writing there; wait for it to end") from None


def read_into(
    stage: Stage,
    cleaner: Cleaner,
    rejected: RejectedWriter,
    further: Collection[str],
    progress: Progress,
    known: Mapping[str, Any] | None = None,
) -> str:
    """Read and clean the whole source into the stage; return the sha256 of the bytes that were read.

    For a delivery, `known` is the manifest of the records to which it is appended.
    Raises DataError when too many of its rows cannot be used.
    """
    config, source = cleaner.config, cleaner.source
    uri = public_uri(source)
    progress(f"reading {uri}")
    reading = open_source(config, columns_to_read(config, source, further))
    rows = 0
    for cleaned in cleaner.chunks(reading.chunks()):
        stage.add(cleaned)
        rejected.add(cleaned.rejected)
        rows = cleaner.tally.rows + cleaner.tally.left_out
        progress(f"cleaning: {rows:,} rows of {uri}")
    if known is None:
        cleaner.target.check()
    else:
        cleaner.target.check_delivery(known.get("stayed", []))
    check_usable(cleaner.tally, source, cleaner.types, config.max_rejected_share, stage.rows)
    return reading.sha256


def arranged_ranges(
    stage: Stage, cleaner: Cleaner, rejected: RejectedWriter, progress: Progress
) -> Iterator[pa.Table]:
    """Yield the staged rows, sorted, one range of customers at a time.

    Copies are added to the rejected rows. Raises DataError for copies when `duplicates` is `refuse`.
    """
    source = cleaner.source
    uri = public_uri(source)
    by_reference = "transaction_id" in source.given
    transactions = stage.repeated_transactions()
    refuse_differing(transactions, uri)
    copies = transactions.copies if source.duplicates != "keep" else transactions.copies[:0]
    rules = Rules(
        labelled=cleaner.config.shape == "labelled",
        find_copies=source.duplicates != "keep" and not by_reference,
        add_up_orders=source.group_by is not None,
    )
    done, first = 0, int(copies[0]) if len(copies) else 0
    for table in stage.ranges():
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
        progress(f"sorting: {done:,} of {stage.rows:,} rows")
        yield result.rows
    if rejected.duplicates and source.duplicates == "refuse":
        raise _repeated(cleaner, uri, rejected.duplicates, first)


def _repeated(cleaner: Cleaner, uri: str, rows: int, first: int) -> DataError:
    source = cleaner.source
    ways = "drop" if cleaner.config.shape == "labelled" else "drop or keep"
    if cleaner.config.shape == "labelled":
        dated = "event_timestamp" in source.given
        equal = "have the user_id and the time of a row above" if dated else "have the user_id of a row above"
        if not dated:
            ways += ", or map data.source.columns.event_timestamp if a customer has a row for each month"
    elif "transaction_id" in source.given:
        equal = "repeat a row above with the same transaction_id"
    else:
        equal = "equal a row above in every column that is read"
    if source.group_by:
        ways = "keep if lines of one order may be alike, or to drop"
    return DataError(
        f"{uri}: {rows:,} rows {equal} (first: row {first}); remove them or set data.source.duplicates to"
        f" {ways}"
    )


def judge(
    rows: Judged, config: DataConfig, source: TableSource, as_of: datetime, progress: Progress
) -> list[dict[str, Any]]:
    """Return one result per expectation. Raises DataError, with the failed ones in its `table`."""
    progress(f"validating {rows.rows:,} rows")
    outcomes = validate(rows, config.expectations, as_of)
    if broken := failed(outcomes):
        first = broken[0]
        raise DataError(
            f"{public_uri(source)}: {len(broken)} of {len(outcomes)} expectations fail, first"
            f" {first['expectation']} ({first['column'] or 'table'}): {first['found']}; correct the rows or"
            " data.expectations",
            broken,
        )
    return outcomes


def suite_record(as_of: datetime, outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"schema_version": 1, "as_of": utc_text(as_of), "success": True, "results": list(outcomes)}

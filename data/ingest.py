"""Turns a source into validated, masked records. If a step fails, nothing is written.

The source is read in chunks. Each chunk is filtered, computed, cleaned, masked and divided into ranges of
customers. For each range, copies are removed, lines are added up to orders, and rows are sorted and written.
Memory is bounded by a few chunks and one range, for a source of any length.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from filelock import FileLock, Timeout

from core.errors import DataError
from core.workspace import Workspace, remove_leftovers
from data.config import DataConfig, TableSource, utc_text
from data.judge.judged import Judged, judged
from data.judge.outcomes import failed
from data.judge.validate import validate
from data.manifest import Dataset, describe, write_json
from data.mask import load_key
from data.prepare.clean import Cleaner
from data.prepare.intake import Intake, Progress
from data.prepare.parts import customers_of
from data.records.versions import current_manifest, new_version
from data.source.readers import public_uri
from data.source.sources import as_table


def ingest(
    config: DataConfig,
    files: Workspace,
    as_of: datetime,
    progress: Progress = lambda message: None,
    further: Collection[str] = (),
    until: datetime | None = None,
) -> dict[str, Any]:
    """Write records, rejected rows, validation and manifest as a new version; return the manifest.

    `as_of` (with a time zone) is the present: rows at or after it are in the future and fail the validation.
    `further` are the columns of the source that features read. With `until`, rows at or after it are left out
    as if the source ended there, whatever their other cells hold. Raises DataError, with the details in its
    `table`, for a source that cannot be used. The current version then stays unchanged.
    """
    key = load_key(config, files)
    source = as_table(config)
    cleaner = Cleaner(config, source, further, until=until)
    with write_lock(files), new_version(files, config.keep_versions) as version:
        _report_dropped_deliveries(files, progress)
        with Intake(version, files, cleaner, key, progress) as intake:
            input_sha256 = intake.read()
            parts = intake.write_parts("base")
        tally, schema = cleaner.tally, intake.schema
        outcomes = judge(judged(version, parts, schema), config, source, as_of, progress)
        dataset = Dataset(
            parts=parts,
            schema=schema,
            customers=len(customers_of(version, parts)),
            input_sha256=input_sha256,
            counts={
                "source_rows": tally.rows + tally.left_out,
                "left_out_rows": tally.left_out,
                "rejected_rows": intake.rejected.rows,
                "duplicate_rows": intake.rejected.duplicates,
            },
            stayed=cleaner.target.stayed,
        )
        manifest = describe(config, key, dataset)
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

"""From a source to a validated, masked table: all of it, or nothing."""

import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from data.clean import check_rejected_share, clean
from data.config import DataConfig, utc_text
from data.errors import DataError
from data.manifest import describe, write_json
from data.mask import load_key, mask_ids, mask_rejected
from data.readers import public_uri
from data.sources import as_table, read
from data.validate import failed, validate
from data.workspace import Workspace, remove_leftovers, replaced_directory

ROWS_A_GROUP = 1_000_000


def ingest(
    config: DataConfig,
    files: Workspace,
    as_of: datetime,
    progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Write records, rejected rows, validation and manifest in one step; return the manifest.

    `as_of` (aware) is the present: what lies at or after it is in the future and fails the suite.
    Raises DataError, with the details in its `table`; what an earlier run wrote then stays as it was.
    """
    files.data.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(files.data.parent / ".lock", blocking=False):
            remove_leftovers(files.data)
            return _ingest(config, files, as_of, progress)
    except Timeout:
        raise DataError(f"{files.data.parent}: another ingest is writing there; wait for it to end") from None


def _ingest(
    config: DataConfig, files: Workspace, as_of: datetime, progress: Callable[[str], None]
) -> dict[str, Any]:
    source = as_table(config)
    uri = public_uri(source)
    key = load_key(config, files)

    progress(f"reading {uri}")
    raw = read(config)
    progress(f"cleaning {raw.table.num_rows:,} rows")
    cleaned, input_sha256 = clean(raw.table, source, config), raw.sha256
    del raw  # the largest thing in memory
    check_rejected_share(cleaned, uri, config.max_rejected_share)

    progress(f"validating {cleaned.records.num_rows:,} rows, {cleaned.rejected.num_rows:,} set aside")
    outcomes = validate(cleaned.records, config.expectations, as_of)
    if broken := failed(outcomes):
        first = broken[0]
        raise DataError(
            f"{uri}: {len(broken)} of {len(outcomes)} expectations fail, first {first['expectation']}"
            f" ({first['column'] or 'table'}): {first['found']}; correct the rows or data.expectations",
            broken,
        )

    ids = mask_ids(cleaned.records["user_id"], source.user_id_type, key)
    progress(f"writing {cleaned.records.num_rows:,} rows of {len(ids.dictionary):,} customers")
    with replaced_directory(files.data) as fresh:
        records = fresh / files.records.name
        _write_records(records, cleaned.records, ids)
        pq.write_table(mask_rejected(cleaned, source, key), fresh / files.rejected.name)
        manifest = describe(
            config,
            cleaned,
            customers=len(ids.dictionary),
            input_sha256=input_sha256,
            output_sha256=_sha256(records),
        )
        write_json(fresh / files.manifest.name, manifest)
        suite = {"schema_version": 1, "as_of": utc_text(as_of), "success": True, "results": outcomes}
        write_json(fresh / files.validation.name, suite)
    return manifest


def _write_records(path: Path, records: pa.Table, ids: pa.DictionaryArray) -> None:
    """Sorted by customer, then time, then place in the source; masks are spelled out by row group."""
    moment = "timestamp" if "timestamp" in records.column_names else "event_timestamp"
    rank = np.argsort(np.argsort(ids.dictionary.to_numpy(zero_copy_only=False)))
    customer = rank.astype(np.int32)[ids.indices.to_numpy()]
    order = np.lexsort((records[moment].cast(pa.int64()).to_numpy(), customer))

    table = records.set_column(records.column_names.index("user_id"), "user_id", ids)
    schema = pa.schema([f.with_type(pa.string()) if f.name == "user_id" else f for f in table.schema])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(order), ROWS_A_GROUP):
            group = table.take(pa.array(order[start : start + ROWS_A_GROUP]))
            writer.write_table(group.cast(schema), row_group_size=ROWS_A_GROUP)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Builds `customer_snapshots` (a customer's features at a time) and `labels` (did the customer churn)."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from core.errors import FeatureError
from core.workspace import Workspace, remove_leftovers, replaced_directory
from data.config import utc_text
from features import purchases, table
from features.records import read_json, read_records
from features.snapshots import Schedule, schedule, schedule_of
from features.spec import FeaturesConfig

ROW_GROUP = 100_000
MOMENT = pa.timestamp("us", "UTC")
LABELS = pa.schema([("user_id", pa.string()), ("event_timestamp", MOMENT), ("churned", pa.int8())])
ARROW = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}

Engine = Callable[[FeaturesConfig, Sequence[Path], Schedule, Path, Callable[[str], None]], int]
"""Writes the parts of a log; `write_parts` of features/purchases.py describes it."""

log = logging.getLogger("churn.features")


def build_features(
    spec: FeaturesConfig,
    files: Workspace,
    as_of: Sequence[datetime] | None = None,
    progress: Callable[[str], None] = log.info,
    *,
    labels: bool = True,
    until: datetime | None = None,
) -> dict[str, Any]:
    """Rewrite `files.features` from the records and return its features.json.

    Transactions: with `as_of`, snapshots are built at exactly these times, all labelled unless `labels` is
    false. By default they follow the spec's schedule, with labels where the horizon has passed; `until` is
    the end of a log that is known to be complete up to then (default: the end of the newest day). Rows of a
    labelled table contain their times. Equal records and spec give equal bytes. Raises FeatureError for
    records, expressions or times that cannot be used, and then nothing has changed.
    """
    folder = files.features.parent
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", blocking=False):
            remove_leftovers(files.features)
            return _build(spec, files, as_of, progress, labels, until)
    except Timeout:
        raise FeatureError(f"{folder}: features are being built there already; wait for it to end") from None


def read_feature_manifest(files: Workspace) -> dict[str, Any]:
    """Read features.json. Raises FeatureError when features were not built yet."""
    return read_json(files.feature_manifest, "churn features build")


def _build(
    spec: FeaturesConfig,
    files: Workspace,
    as_of: Sequence[datetime] | None,
    progress: Callable[[str], None],
    labels: bool,
    until: datetime | None,
) -> dict[str, Any]:
    manifest, records = read_records(files)
    with replaced_directory(files.features) as fresh:
        parts = fresh / "parts"
        if manifest["shape"] == "transactions":
            plan = _schedule(spec, manifest, as_of, labels, until)
            excluded = _engine(spec)(spec, records, plan, parts, progress)
        elif as_of is None:
            plan, excluded = table.write_parts(spec, records, parts)
        else:
            raise FeatureError("as_of: the rows of a labelled table contain their times; remove as_of")
        progress("snapshots: joining the parts")
        rows = _join(parts / "snapshots", fresh / files.snapshots.name, snapshot_schema(spec))
        label_rows = _join(parts / "labels", fresh / files.labels.name, LABELS)
        if rows == 0:
            raise FeatureError(_no_rows_message(plan, excluded))
        shutil.rmtree(parts)
        record = {
            "schema_version": 1,
            "spec_digest": spec.digest(),
            "manifest_sha256": hashlib.sha256(files.manifest.read_bytes()).hexdigest(),
            "shape": manifest["shape"],
            "engine": spec.engine if manifest["shape"] == "transactions" else "duckdb",
            "snapshots": [utc_text(moment) for moment in plan.snapshots],
            "labelled_snapshots": [utc_text(moment) for moment in plan.labelled],
            "latest": utc_text(plan.latest),
            "rows": rows,
            "label_rows": label_rows,
            "horizon_days": spec.horizon_days,
            "eligible": spec.eligibility,
            "not_eligible_rows": excluded,
        }
        (fresh / files.feature_manifest.name).write_text(
            json.dumps(record, indent=2) + "\n", encoding="utf-8"
        )
    progress(f"snapshots: {rows:,} rows at {len(plan.snapshots)} moments, {label_rows:,} labelled")
    if excluded:
        progress(f"eligible: {spec.eligibility}; {excluded:,} rows of other customers are left out")
    return record


def snapshot_schema(spec: FeaturesConfig) -> pa.Schema:
    """The schema of customer_snapshots.parquet."""
    keys = [("user_id", pa.string()), ("event_timestamp", MOMENT), ("created_timestamp", MOMENT)]
    return pa.schema(keys + [(feature.name, ARROW[feature.dtype]) for feature in spec.features])


def _engine(spec: FeaturesConfig) -> Engine:
    if spec.engine == "duckdb":
        return purchases.write_parts
    from features.spark import purchases as on_spark  # late: most builds do not use it

    return on_spark.write_parts


def _schedule(
    spec: FeaturesConfig,
    manifest: Mapping[str, Any],
    as_of: Sequence[datetime] | None,
    labels: bool,
    until: datetime | None,
) -> Schedule:
    start, newest = (datetime.fromisoformat(manifest["window"][edge]) for edge in ("start", "end"))
    end = newest if until is None else until
    if as_of is None:
        return schedule(spec, start, end)
    return schedule_of(as_of, spec, start, end, labels)


def _no_rows_message(plan: Schedule, excluded: int) -> str:
    if excluded:
        return f"features.eligible: not one of {excluded:,} rows is eligible; correct the condition"
    return f"as_of {utc_text(plan.latest)}: no customer was known yet; take a later moment"


def _join(parts: Path, file: Path, schema: pa.Schema) -> int:
    """Write the parts into one file, sorted by name, which is the order of their rows. Returns the row count.

    Row groups are formed anew, so the file's bytes depend on the rows and not on the parts.
    """
    written = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in _regrouped(_read(parts, schema)):
            writer.write_table(rows)
            written += rows.num_rows
    return written


def _read(parts: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for part in sorted(parts.iterdir()):  # one open file at a time, because there may be thousands
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches():
                yield batch.cast(schema)  # parts differ in the nullability of columns


def _regrouped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows in tables of ROW_GROUP rows; the last one may be smaller."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= ROW_GROUP:
            table = pa.Table.from_batches(waiting).combine_chunks()
            for start in range(0, rows - rows % ROW_GROUP, ROW_GROUP):
                yield table.slice(start, ROW_GROUP)
            waiting = table.slice(rows - rows % ROW_GROUP).to_batches()
            rows %= ROW_GROUP
    if rows:
        yield pa.Table.from_batches(waiting).combine_chunks()

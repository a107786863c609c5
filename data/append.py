"""Appends a delivery to the records: it is read, compared with the stored rows, and added as a separate part.

Stored parts are linked, not copied. A part is rewritten only where the delivery replaces some of its rows.
All parts are rewritten when deliveries hold more than `COMPACT_SHARE` of the rows.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import DataError
from core.workspace import Workspace
from data.config import DataConfig, TableSource
from data.ingest import STAGE, Progress, arranged_ranges, judge, read_into, suite_record, write_lock
from data.judge.judged import judged
from data.manifest import appended, mapping_sha256, parts_in, write_json
from data.mask import load_key
from data.prepare import merge
from data.prepare.clean import Cleaner
from data.prepare.compare import Comparison, compare
from data.prepare.parts import INDEX, RECORDS, Part, PartWriter, customers_of
from data.prepare.rejected import RejectedWriter
from data.prepare.stage import Stage
from data.records.erasure import Erased
from data.records.folder import moment_of
from data.records.versions import current_manifest, new_version
from data.source.readers import public_uri
from handlers.identity import key_check

COMPACT_SHARE = 0.2
"""Largest share of all rows in deliveries. Above it, all parts are merged into a new base."""
MAX_DELIVERIES = 99
"""Largest number of deliveries that readers have to merge. Above it, all are merged into the base."""
DELIVERIES = "deliveries"
"""Folder of a version with the rejected rows and the validation results of each delivery."""


@dataclass(frozen=True)
class Delivery:
    """The result of an append, also in the manifest. Counts are rows of the records: orders, not lines."""

    uri: str
    input_sha256: str
    rows: int = 0
    """All usable rows."""
    new: int = 0
    repeated: int = 0
    """Rows equal to a stored row. They are left out."""
    changed: int = 0
    """Rows of a stored transaction, order, or labelled customer and time, but with other values. The new row
    replaces the stored one."""
    late: int = 0
    """New and changed rows that are older than the newest stored row."""
    rejected: int = 0
    compacted: bool = False
    known: bool = False
    """True when the records already contain this delivery. Then nothing has changed."""


@dataclass(frozen=True)
class _StagedDelivery:
    """A delivery, read and sorted, in a folder with the layout of a version."""

    folder: Path
    parts: list[Part]
    schema: pa.Schema
    delivery: Delivery


def append(
    config: DataConfig,
    files: Workspace,
    uri: str,
    as_of: datetime,
    progress: Progress = lambda message: None,
    further: Collection[str] = (),
) -> Delivery:
    """Merge the delivery at `uri`, in the format of the source of `config`, into a new version of the
    records.

    Raises DataError when there are no records yet, when they were made with another mapping or key, or when
    the delivery cannot be used. The current version then stays unchanged.
    """
    key = load_key(config, files)
    with write_lock(files):
        manifest = current_manifest(files)
        cleaner = _cleaner(config, uri, manifest, key, further)
        with TemporaryDirectory(prefix="version-", dir=files.data.parent) as scratch:
            staged = _read(cleaner, Path(scratch), manifest, key, further, progress, files)
            if staged.delivery.known:
                return staged.delivery
            progress(f"comparing {staged.delivery.rows:,} rows with {manifest['rows']:,} stored ones")
            return _merge(staged, cleaner, files, manifest, as_of, progress)


def _cleaner(
    config: DataConfig, uri: str, manifest: Mapping[str, Any], key: bytes, further: Collection[str]
) -> Cleaner:
    """The cleaner of the delivery, with the column types of the stored records."""
    source = config.source
    if not isinstance(source, TableSource) or source.kind == "postgres":
        raise DataError(f"data.source.kind {source.kind}: deliveries are files; run `churn ingest` instead")
    if manifest.get("mapping_sha256") != mapping_sha256(config):
        raise DataError(
            "the records were made with other settings of data.source; run `churn ingest` on the whole source"
        )
    if manifest["key_check"] != key_check(key):
        raise DataError(f"the records were masked with another key; set {config.mask_key_env} to that one")
    delivered = source.model_copy(update={"uri": uri})
    known = [name for name in manifest["schema"] if name not in _STANDARD_COLUMNS]
    types = {name: _KINDS[manifest["schema"][name]] for name in known}
    cleaner = Cleaner(config.model_copy(update={"source": delivered}), delivered, further, types)
    if list(cleaner.further) != known:
        raise DataError(
            f"the records have the further columns {', '.join(known) or 'none'}, and features now read"
            f" {', '.join(cleaner.further) or 'none'}; run `churn ingest` on the whole source"
        )
    return cleaner


_STANDARD_COLUMNS = ("user_id", "timestamp", "event_timestamp", "amount", "quantity", "is_return", "target")
_KINDS = {"int64": "int64", "double": "float64", "string": "string"}


def _read(
    cleaner: Cleaner,
    scratch: Path,
    manifest: Mapping[str, Any],
    key: bytes,
    further: Collection[str],
    progress: Progress,
    files: Workspace,
) -> _StagedDelivery:
    erased = Erased(files.erased, key)
    stage = Stage(scratch / STAGE, cleaner, key, erased)
    delivery = Delivery(public_uri(cleaner.source), "")
    with RejectedWriter(scratch / files.rejected.name, cleaner, key, erased) as rejected:
        sha256 = read_into(stage, cleaner, rejected, further, progress, manifest)
        delivery = replace(delivery, input_sha256=sha256)
        known = {manifest["input_sha256"], *(one["input_sha256"] for one in manifest["deliveries"])}
        if sha256 in known:
            return _StagedDelivery(scratch, [], stage.schema(), replace(delivery, known=True))
        prefix = f"delivery-{len(manifest['deliveries']) + 1:04d}"
        writer = PartWriter(scratch, prefix, stage.schema())
        for rows in arranged_ranges(stage, cleaner, rejected, progress):
            writer.add(rows)
    parts = writer.close()
    rows = sum(part.rows for part in parts)
    return _StagedDelivery(
        scratch, parts, stage.schema(), replace(delivery, rows=rows, rejected=rejected.rows)
    )


def _merge(
    staged: _StagedDelivery,
    cleaner: Cleaner,
    files: Workspace,
    manifest: Mapping[str, Any],
    as_of: datetime,
    progress: Progress,
) -> Delivery:
    known, old = parts_in(manifest), files.data.resolve()
    found = compare(_index(staged.folder, staged.parts), ((p.name, _index(old, [p])) for p in known))
    delivery = _counted(staged, found, manifest)
    with new_version(files, cleaner.config.keep_versions) as version:
        added = _without_repeated(staged, version, found)
        parts = []
        for part in known:
            dropped = found.superseded.get(part.name)
            if dropped is None:
                parts.append(merge.link_part(old, version, part))
            else:
                parts += merge.without_rows(old, version, part, dropped)
        parts = sorted([*parts, *added], key=lambda part: part.name)
        rows = judged(version, added, staged.schema, sum(part.rows for part in parts))
        outcomes = judge(rows, cleaner.config, cleaner.source, as_of, progress) if added else []
        if _is_time_to_compact(parts):
            progress("merging all deliveries into the base")
            parts, delivery = _compacted(version, parts), replace(delivery, compacted=True)
        _write_delivery_files(staged, version, old, files, len(manifest["deliveries"]) + 1)
        record = suite_record(as_of, outcomes)
        write_json(_delivery_folder(version, len(manifest["deliveries"]) + 1) / files.validation.name, record)
        customers = len(customers_of(version, parts))
        write_json(version / files.manifest.name, appended(manifest, parts, customers, asdict(delivery)))
    return delivery


def _counted(staged: _StagedDelivery, found: Comparison, manifest: Mapping[str, Any]) -> Delivery:
    newest = (datetime.fromisoformat(manifest["newest"]) - _EPOCH) // timedelta(microseconds=1)
    moment = moment_of(staged.schema.names)
    times = [
        pq.read_table(staged.folder / RECORDS / p.name, columns=[moment], partitioning=None)[moment]
        for p in staged.parts
    ]
    early = np.concatenate([np.zeros(0, bool), *(t.cast(pa.int64()).to_numpy() < newest for t in times)])
    added = ~found.repeated
    return replace(
        staged.delivery,
        new=int((added & ~found.changed).sum()),
        repeated=int(found.repeated.sum()),
        changed=int(found.changed.sum()),
        late=int((added & early).sum()),
    )


def _without_repeated(staged: _StagedDelivery, version: Path, found: Comparison) -> list[Part]:
    """Write the delivery's parts, without repeated rows, into the new version."""
    parts, start = [], 0
    for part in staged.parts:
        repeated = found.repeated[start : start + part.rows]
        start += part.rows
        if repeated.any():
            parts += merge.without_rows(staged.folder, version, part, repeated)
        else:
            parts.append(merge.link_part(staged.folder, version, part))
    return parts


def _is_time_to_compact(parts: list[Part]) -> bool:
    delivered = [part for part in parts if part.name.startswith("delivery")]
    rows = sum(part.rows for part in delivered)
    numbers = {part.name.split("-")[1] for part in delivered}
    return rows > COMPACT_SHARE * sum(part.rows for part in parts) or len(numbers) > MAX_DELIVERIES


def _compacted(version: Path, parts: list[Part]) -> list[Part]:
    """Replace the parts of the unfinished `version` by one base, in place."""
    with TemporaryDirectory(dir=version) as merged:
        written = merge.compact(version, Path(merged), parts)
        for folder in merge.PART_FOLDERS:
            for part in parts:
                (version / folder / part.name).unlink()
            for part in written:
                (Path(merged) / folder / part.name).rename(version / folder / part.name)
    return written


def _write_delivery_files(
    staged: _StagedDelivery, version: Path, old: Path, files: Workspace, number: int
) -> None:
    """Write rejected rows and validation results: of the base, of earlier deliveries, and of this one."""
    merge.link(old / files.rejected.name, version / files.rejected.name)
    merge.link(old / files.validation.name, version / files.validation.name)
    for file in sorted((old / DELIVERIES).glob("*/*")):
        merge.link(file, version / DELIVERIES / file.parent.name / file.name)
    merge.link(staged.folder / files.rejected.name, _delivery_folder(version, number) / files.rejected.name)


def _delivery_folder(version: Path, number: int) -> Path:
    return version / DELIVERIES / f"{number:04d}"


def _index(version: Path, parts: list[Part]) -> pa.Table:
    files = [version / INDEX / part.name for part in parts]
    tables = [pq.read_table(file, partitioning=None) for file in files]
    return pa.concat_tables(tables) if tables else _EMPTY


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EMPTY = pa.schema([("hash", pa.uint64()), ("key", pa.uint64())]).empty_table()

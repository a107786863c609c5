"""A new delivery beside the known records: read by itself, compared, and merged as a part of its own.

The known parts are linked, not copied. Only a part with rows that the delivery replaces is written anew, and
all of them are once deliveries hold more than `COMPACT_SHARE` of the rows.
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

from data.config import DataConfig, TableSource
from data.errors import DataError
from data.ingest import STAGE, Progress, arranged, judge, read_into, suite_record, writing_alone
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
from data.workspace import Workspace
from handlers.identity import key_check

COMPACT_SHARE = 0.2
"""Of all rows: what deliveries may hold before all is merged into one base again."""
MOST_DELIVERIES = 99
"""Parts that a reader should have to merge; more are merged into the base whatever their rows."""
DELIVERIES = "deliveries"
"""Folder of a version: what each delivery set aside, and how it was judged."""


@dataclass(frozen=True)
class Delivery:
    """What an append did; in the manifest as well. Rows are those of the records: orders, not lines."""

    uri: str
    input_sha256: str
    rows: int = 0
    """All that could be used."""
    new: int = 0
    repeated: int = 0
    """Equal to a known row, and left out."""
    changed: int = 0
    """Of a transaction, an order, or a labelled customer and time that was known with other values. The new
    row counts; the old one is gone."""
    late: int = 0
    """Of the new and changed ones, those before the newest moment that was known."""
    rejected: int = 0
    compacted: bool = False
    known: bool = False
    """The delivery is part of the records already; nothing has changed."""


@dataclass(frozen=True)
class _Arrived:
    """A delivery, read and sorted, in a folder laid out like a version."""

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
    """Merge the delivery at `uri`, written like the source of `config`, into a new version of the records.

    Raises DataError when there are no records yet, when another mapping or key made them, or when the
    delivery cannot be used; the current version then stays.
    """
    key = load_key(config, files)
    with writing_alone(files):
        manifest = current_manifest(files)
        cleaner = _cleaner(config, uri, manifest, key, further)
        with TemporaryDirectory(prefix="version-", dir=files.data.parent) as scratch:
            arrived = _read(cleaner, Path(scratch), manifest, key, further, progress, files)
            if arrived.delivery.known:
                return arrived.delivery
            progress(f"comparing {arrived.delivery.rows:,} rows with {manifest['rows']:,} known ones")
            return _merge(arrived, cleaner, files, manifest, as_of, progress)


def _cleaner(
    config: DataConfig, uri: str, manifest: Mapping[str, Any], key: bytes, further: Collection[str]
) -> Cleaner:
    """Of the delivery, with the types that the known records have."""
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
    known = [name for name in manifest["schema"] if name not in _OURS]
    types = {name: _KINDS[manifest["schema"][name]] for name in known}
    cleaner = Cleaner(config.model_copy(update={"source": delivered}), delivered, further, types)
    if list(cleaner.further) != known:
        raise DataError(
            f"the records have the further columns {', '.join(known) or 'none'}, and features now read"
            f" {', '.join(cleaner.further) or 'none'}; run `churn ingest` on the whole source"
        )
    return cleaner


_OURS = ("user_id", "timestamp", "event_timestamp", "amount", "quantity", "is_return", "target")
_KINDS = {"int64": "int64", "double": "float64", "string": "string"}


def _read(
    cleaner: Cleaner,
    scratch: Path,
    manifest: Mapping[str, Any],
    key: bytes,
    further: Collection[str],
    progress: Progress,
    files: Workspace,
) -> _Arrived:
    erased = Erased(files.erased, key)
    stage = Stage(scratch / STAGE, cleaner, key, erased)
    delivery = Delivery(public_uri(cleaner.source), "")
    with RejectedWriter(scratch / files.rejected.name, cleaner, key, erased) as rejected:
        sha256 = read_into(stage, cleaner, rejected, further, progress, manifest)
        delivery = replace(delivery, input_sha256=sha256)
        known = {manifest["input_sha256"], *(one["input_sha256"] for one in manifest["deliveries"])}
        if sha256 in known:
            return _Arrived(scratch, [], stage.schema(), replace(delivery, known=True))
        prefix = f"delivery-{len(manifest['deliveries']) + 1:04d}"
        writer = PartWriter(scratch, prefix, stage.schema())
        for rows in arranged(stage, cleaner, rejected, progress):
            writer.add(rows)
    parts = writer.close()
    rows = sum(part.rows for part in parts)
    return _Arrived(scratch, parts, stage.schema(), replace(delivery, rows=rows, rejected=rejected.rows))


def _merge(
    arrived: _Arrived,
    cleaner: Cleaner,
    files: Workspace,
    manifest: Mapping[str, Any],
    as_of: datetime,
    progress: Progress,
) -> Delivery:
    known, old = parts_in(manifest), files.data.resolve()
    found = compare(_index(arrived.folder, arrived.parts), ((p.name, _index(old, [p])) for p in known))
    delivery = _counted(arrived, found, manifest)
    with new_version(files, cleaner.config.keep_versions) as version:
        added = _without_repeated(arrived, version, found)
        parts = []
        for part in known:
            dropped = found.superseded.get(part.name)
            if dropped is None:
                parts.append(merge.link_part(old, version, part))
            else:
                parts += merge.without_rows(old, version, part, dropped)
        parts = sorted([*parts, *added], key=lambda part: part.name)
        rows = judged(version, added, arrived.schema, sum(part.rows for part in parts))
        outcomes = judge(rows, cleaner.config, cleaner.source, as_of, progress) if added else []
        if _is_time_to_compact(parts):
            progress("merging all deliveries into the base")
            parts, delivery = _compacted(version, parts), replace(delivery, compacted=True)
        _write_beside(arrived, version, old, files, len(manifest["deliveries"]) + 1)
        record = suite_record(as_of, outcomes)
        write_json(_beside(version, len(manifest["deliveries"]) + 1) / files.validation.name, record)
        customers = len(customers_of(version, parts))
        write_json(version / files.manifest.name, appended(manifest, parts, customers, asdict(delivery)))
    return delivery


def _counted(arrived: _Arrived, found: Comparison, manifest: Mapping[str, Any]) -> Delivery:
    newest = (datetime.fromisoformat(manifest["newest"]) - _EPOCH) // timedelta(microseconds=1)
    moment = moment_of(arrived.schema.names)
    times = [
        pq.read_table(arrived.folder / RECORDS / p.name, columns=[moment], partitioning=None)[moment]
        for p in arrived.parts
    ]
    early = np.concatenate([np.zeros(0, bool), *(t.cast(pa.int64()).to_numpy() < newest for t in times)])
    added = ~found.repeated
    return replace(
        arrived.delivery,
        new=int((added & ~found.changed).sum()),
        repeated=int(found.repeated.sum()),
        changed=int(found.changed.sum()),
        late=int((added & early).sum()),
    )


def _without_repeated(arrived: _Arrived, version: Path, found: Comparison) -> list[Part]:
    """The delivery's parts in the new version, without rows that were known."""
    parts, start = [], 0
    for part in arrived.parts:
        repeated = found.repeated[start : start + part.rows]
        start += part.rows
        if repeated.any():
            parts += merge.without_rows(arrived.folder, version, part, repeated)
        else:
            parts.append(merge.link_part(arrived.folder, version, part))
    return parts


def _is_time_to_compact(parts: list[Part]) -> bool:
    delivered = [part for part in parts if part.name.startswith("delivery")]
    rows = sum(part.rows for part in delivered)
    numbers = {part.name.split("-")[1] for part in delivered}
    return rows > COMPACT_SHARE * sum(part.rows for part in parts) or len(numbers) > MOST_DELIVERIES


def _compacted(version: Path, parts: list[Part]) -> list[Part]:
    """In place: the parts of the version that is being made are replaced by a base."""
    with TemporaryDirectory(dir=version) as merged:
        written = merge.compact(version, Path(merged), parts)
        for folder in merge.OF_A_PART:
            for part in parts:
                (version / folder / part.name).unlink()
            for part in written:
                (Path(merged) / folder / part.name).rename(version / folder / part.name)
    return written


def _write_beside(arrived: _Arrived, version: Path, old: Path, files: Workspace, number: int) -> None:
    """What the base and the deliveries before have left beside their rows, and what this one does."""
    merge.link(old / files.rejected.name, version / files.rejected.name)
    merge.link(old / files.validation.name, version / files.validation.name)
    for file in sorted((old / DELIVERIES).glob("*/*")):
        merge.link(file, version / DELIVERIES / file.parent.name / file.name)
    merge.link(arrived.folder / files.rejected.name, _beside(version, number) / files.rejected.name)


def _beside(version: Path, number: int) -> Path:
    return version / DELIVERIES / f"{number:04d}"


def _index(version: Path, parts: list[Part]) -> pa.Table:
    files = [version / INDEX / part.name for part in parts]
    tables = [pq.read_table(file, partitioning=None) for file in files]
    return pa.concat_tables(tables) if tables else _EMPTY


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EMPTY = pa.schema([("hash", pa.uint64()), ("key", pa.uint64())]).empty_table()

"""Appends a delivery to the records: it is read, compared with the stored rows, and added as a separate part.

Stored parts are linked, not copied. A part is rewritten only where the delivery replaces some of its rows.
All parts are rewritten when deliveries hold more than `COMPACT_SHARE` of the rows.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from core.workspace import Workspace
from data.config import DataConfig
from data.delivery import DELIVERIES, Base, Delivery, StagedDelivery, cleaner_of, counted, read_delivery
from data.ingest import judge, suite_record, write_lock
from data.judge.judged import judged
from data.manifest import appended, parts_in, write_json
from data.mask import load_key
from data.prepare import merge
from data.prepare.clean import Cleaner
from data.prepare.compare import Comparison, compare
from data.prepare.intake import Progress
from data.prepare.parts import INDEX, Part, customers_of
from data.records.versions import current_manifest, new_version

COMPACT_SHARE = 0.2
"""Largest share of all rows in deliveries. Above it, all parts are merged into a new base."""
MAX_DELIVERIES = 99
"""Largest number of deliveries that readers have to merge. Above it, all are merged into the base."""


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
        base = Base(files, files.data.resolve(), current_manifest(files))
        cleaner = cleaner_of(config, uri, base.manifest, key, further)
        with TemporaryDirectory(prefix="version-", dir=files.data.parent) as scratch:
            staged = read_delivery(cleaner, base, Path(scratch), key, progress)
            if staged.delivery.known:
                return staged.delivery
            progress(f"comparing {staged.delivery.rows:,} rows with {base.manifest['rows']:,} stored ones")
            return _merge(staged, cleaner, base, as_of, progress)


def _merge(
    staged: StagedDelivery, cleaner: Cleaner, base: Base, as_of: datetime, progress: Progress
) -> Delivery:
    """Write the new version, and make it the current one."""
    files, known = base.files, parts_in(base.manifest)
    found = compare(_index(staged.folder, staged.parts), ((p.name, _index(base.folder, [p])) for p in known))
    delivery = counted(staged, found, base.manifest)
    with new_version(files, cleaner.config.keep_versions) as version:
        added = _without_repeated(staged, version, found)
        stored = _without_superseded(known, base, version, found)
        parts = sorted([*stored, *added], key=lambda part: part.name)
        rows = judged(version, added, staged.schema, sum(part.rows for part in parts))
        outcomes = judge(rows, cleaner.config, cleaner.source, as_of, progress) if added else []
        if _is_time_to_compact(parts):
            progress("merging all deliveries into the base")
            parts, delivery = _compacted(version, parts), replace(delivery, compacted=True)
        _link_files(staged, base, version)
        record = suite_record(as_of, outcomes)
        write_json(base.delivery_folder(version) / files.validation.name, record)
        customers = len(customers_of(version, parts))
        write_json(version / files.manifest.name, appended(base.manifest, parts, customers, asdict(delivery)))
    return delivery


def _without_repeated(staged: StagedDelivery, version: Path, found: Comparison) -> list[Part]:
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


def _without_superseded(known: Sequence[Part], base: Base, version: Path, found: Comparison) -> list[Part]:
    """Take the stored parts, without rows that the delivery replaces, into the new version."""
    parts: list[Part] = []
    for part in known:
        dropped = found.superseded.get(part.name)
        if dropped is None:
            parts.append(merge.link_part(base.folder, version, part))
        else:
            parts += merge.without_rows(base.folder, version, part, dropped)
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


def _link_files(staged: StagedDelivery, base: Base, version: Path) -> None:
    """Link the files of the base and of earlier deliveries, and the rejected rows of this one."""
    rejected, validation = base.files.rejected.name, base.files.validation.name
    for name in (rejected, validation):
        merge.link(base.folder / name, version / name)
    for file in sorted((base.folder / DELIVERIES).glob("*/*")):
        merge.link(file, version / DELIVERIES / file.parent.name / file.name)
    merge.link(staged.folder / rejected, base.delivery_folder(version) / rejected)


def _index(version: Path, parts: list[Part]) -> pa.Table:
    files = [version / INDEX / part.name for part in parts]
    tables = [pq.read_table(file, partitioning=None) for file in files]
    return pa.concat_tables(tables) if tables else _EMPTY


_EMPTY = pa.schema([("hash", pa.uint64()), ("key", pa.uint64())]).empty_table()

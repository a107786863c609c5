"""Erases customers: writes a version of the records without them, and deletes older versions with them."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.errors import DataError
from core.workspace import Workspace
from data.config import DataConfig
from data.ingest import write_lock
from data.manifest import parts_in, reduced, write_json
from data.prepare import merge
from data.prepare.parts import RECORDS, Part, customers_of
from data.records import remote
from data.records.erasure import count_rows, remove_rows
from data.records.versions import current_manifest, new_version, versions


def forget_records(files: Workspace, masked: Sequence[str]) -> int:
    """Remove the customers `masked` (masked identifiers) from records and rejected rows.

    Returns how many rows of the current version they had. Earlier versions with their rows are deleted as a
    whole. Raises DataError when no customer would be left.
    """
    with write_lock(files):
        removed = _held(files.data.resolve(), masked)
        if removed:
            _write_version(files, masked)
        for version in versions(files):
            if not version.current and _held(version.folder, masked):
                shutil.rmtree(version.folder)
    return removed


def forget_stored(config: DataConfig, files: Workspace, masked: Sequence[str]) -> int:
    """Remove all versions with the customers `masked` from `data.store`, and copy the current version there.

    Returns the number of removed versions. Raises DataError when the store cannot be reached.
    """
    removed = 0
    for sha256 in remote.stored(config):
        with TemporaryDirectory() as scratch:
            remote.download(config, sha256, Path(scratch))
            held = _held(Path(scratch), masked)
        if held:
            remote.remove(config, files, sha256)
            removed += 1
    remote.publish(config, files)
    return removed


def _write_version(files: Workspace, masked: Sequence[str]) -> None:
    manifest, old = current_manifest(files), files.data.resolve()
    with new_version(files, keep=len(versions(files)) + 1) as new:
        parts: list[Part] = []
        for part in parts_in(manifest):
            dropped = _rows_of(old, part, masked)
            if dropped.any():
                parts += merge.without_rows(old, new, part, dropped)
            else:
                parts.append(merge.link_part(old, new, part))
        if not parts:
            raise DataError("no customer would be left in the records; remove the workspace instead")
        for file in (file for file in old.rglob("*") if file.is_file()):
            place = new / file.relative_to(old)
            if not place.exists() and file.parent.name not in merge.PART_FOLDERS:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, place)  # not linked, because rows of some files are removed below
                if place.suffix == ".parquet":
                    remove_rows(place, masked)
        rows = manifest["rows"] - sum(part.rows for part in parts)
        record = reduced(manifest, parts, len(customers_of(new, parts)), rows)
        (new / files.manifest.name).unlink(missing_ok=True)
        write_json(new / files.manifest.name, record)


def _rows_of(
    version: Path, part: Part, masked: Sequence[str]
) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    users = pq.read_table(version / RECORDS / part.name, columns=["user_id"], partitioning=None)["user_id"]
    found = pc.is_in(users, pa.array(list(masked), pa.string())).to_numpy()
    return np.asarray(found, dtype=bool)


def _held(version: Path, masked: Sequence[str]) -> int:
    """The number of rows of these customers in the version's files, rejected rows included."""
    found = 0
    for file in version.rglob("*.parquet"):
        with pq.ParquetFile(file) as content:
            names = [field.name for field in content.schema_arrow if pa.types.is_string(field.type)]
            for group in range(content.num_row_groups) if names else ():
                found += count_rows(content.read_row_group(group, names), masked)
    return found

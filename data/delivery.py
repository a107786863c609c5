"""A delivery: how it is read, in the format of the source, and what of it is new."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import DataError
from core.workspace import Workspace
from data.config import DataConfig, TableSource
from data.manifest import mapping_sha256
from data.prepare.clean import Cleaner
from data.prepare.compare import Comparison
from data.prepare.intake import Intake, Progress
from data.prepare.parts import RECORDS, Part
from data.records.folder import moment_of
from data.source.readers import public_uri
from handlers.identity import key_check

DELIVERIES = "deliveries"
"""Folder of a version with the rejected rows and the validation results of each delivery."""
_STANDARD_COLUMNS = ("user_id", "timestamp", "event_timestamp", "amount", "quantity", "is_return", "target")
_KINDS = {"int64": "int64", "double": "float64", "string": "string"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
class Base:
    """The current version of the records, to which a delivery is appended."""

    files: Workspace
    folder: Path
    manifest: dict[str, Any]

    def delivery_folder(self, version: Path) -> Path:
        """The folder of the new delivery's files in the new version."""
        return version / DELIVERIES / f"{self.next_number:04d}"

    @property
    def next_number(self) -> int:
        return len(self.manifest["deliveries"]) + 1


@dataclass(frozen=True)
class StagedDelivery:
    """A delivery, read and sorted, in a folder with the layout of a version."""

    folder: Path
    parts: list[Part]
    schema: pa.Schema
    delivery: Delivery


def cleaner_of(
    config: DataConfig, uri: str, manifest: Mapping[str, Any], key: bytes, further: Collection[str]
) -> Cleaner:
    """The cleaner of the delivery at `uri`, with the column types of the stored records.

    Raises DataError when the records were made from another kind of source, mapping, key or columns.
    """
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
    types = further_types(manifest)
    known = list(types)
    cleaner = Cleaner(config.model_copy(update={"source": delivered}), delivered, further, types)
    if list(cleaner.further.names) != known:
        raise DataError(
            f"the records have the further columns {', '.join(known) or 'none'}, and features now read"
            f" {', '.join(cleaner.further.names) or 'none'}; run `churn ingest` on the whole source"
        )
    return cleaner


def further_types(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The further columns of the stored records, in their order, and their types."""
    names = [name for name in manifest["schema"] if name not in _STANDARD_COLUMNS]
    return {name: _KINDS[manifest["schema"][name]] for name in names}


def read_delivery(
    cleaner: Cleaner, base: Base, scratch: Path, key: bytes, progress: Progress
) -> StagedDelivery:
    """Read the delivery into the folder `scratch`. Raises DataError when it cannot be used."""
    manifest = base.manifest
    with Intake(scratch, base.files, cleaner, key, progress) as intake:
        sha256 = intake.read(known=manifest)
        delivery = Delivery(public_uri(cleaner.source), sha256)
        if sha256 in {manifest["input_sha256"], *(one["input_sha256"] for one in manifest["deliveries"])}:
            return StagedDelivery(scratch, [], intake.schema, replace(delivery, known=True))
        parts = intake.write_parts(f"delivery-{base.next_number:04d}")
    rows = sum(part.rows for part in parts)
    delivery = replace(delivery, rows=rows, rejected=intake.rejected.rows)
    return StagedDelivery(scratch, parts, intake.schema, delivery)


def counted(staged: StagedDelivery, found: Comparison, manifest: Mapping[str, Any]) -> Delivery:
    """The delivery with the counts of the comparison `found` with the stored rows of `manifest`."""
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

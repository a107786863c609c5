"""From a prediction to the snapshot of its features, and to the customer's rows in the records."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from data.records.versions import current_manifest
from features.build import MOMENT, read_feature_manifest
from handlers.bundle import present_digest
from pipelines.context import Stages
from pipelines.score import model_columns, snapshot_at
from pipelines.services import service_of
from pipelines.trace.link import Link, Proof, same
from pipelines.trace.prediction import features_of

LAST_ROWS = 20
"""Rows of the source that are shown, the newest ones."""


def snapshot(
    settings: Stages,
    record: Mapping[str, Any],
    bundle: Mapping[str, Any],
    trusted: bool,
    scratch: Path,
    announce: Callable[[str], None],
) -> Link:
    """The customer's features at the moment that the log names, compared with the vector that was scored.

    They are those of the archive's own spec, read from the built snapshot or computed again from the records.
    `trusted`: the archive was verified; otherwise the SQL of a spec that is not configured is not run. Names
    of features that differ are stated, and none of their values.
    """
    moment = record["features_at"]
    if moment is None:
        return Link("features", {"status": record["status"], "moment": "none: an unknown customer"})
    facts: dict[str, object] = {"moment": f"{moment:%Y-%m-%d %H:%M} UTC", "status": record["status"]}
    packaged = present_digest(bundle["spec"], str(bundle["spec_digest"]))
    if packaged != settings.features.digest() and not trusted:
        other = Proof(
            f"the archive has feature spec {packaged[:12]} and is not trusted, so its SQL is not run", False
        )
        return Link("features", facts, [other])
    service = service_of(settings, bundle["spec"])
    shape = read_feature_manifest(settings.files)["shape"]
    as_of = moment if shape == "transactions" else None
    built, _ = snapshot_at(service.spec, service.files, as_of, scratch, announce)
    manifest = hashlib.sha256(settings.files.manifest.read_bytes()).hexdigest()
    proofs = [same("data of the snapshot", read_feature_manifest(built)["manifest_sha256"], manifest)]
    row = ds.dataset(built.snapshots).to_table(filter=_of(record["user_id"], "event_timestamp", moment))
    if row.num_rows != 1:
        return Link("features", facts, [*proofs, Proof("the snapshot has no row of this customer", False)])
    return Link("features", facts, [*proofs, _equal(record, row, bundle["spec"])])


def source_rows(settings: Stages, record: Mapping[str, Any]) -> Link:
    """The customer's rows in the records before the moment of the features, the newest LAST_ROWS shown."""
    files = settings.files
    manifest = current_manifest(files)
    records = ds.dataset(files.records)
    time = "timestamp" if "timestamp" in records.schema.names else "event_timestamp"
    wanted = ds.field("user_id") == record["user_id"]
    if (moment := record["features_at"]) is not None:
        until = pa.scalar(moment, records.schema.field(time).type)
        # a labelled table's features are those of the row itself, a log's are of earlier rows
        wanted &= ds.field(time) < until if time == "timestamp" else ds.field(time) <= until
    rows = records.to_table(filter=wanted).sort_by(time).to_pylist()
    facts = {
        "source": manifest["source"]["uri"],
        "customer (masked)": record["user_id"],
        "rows": len(rows),
        "parts": ", ".join(part["name"] for part in manifest["parts"][:4]),
    }
    proofs = [same("number of parts", len(records.files), len(manifest["parts"]))]
    if moment is not None:
        proofs.append(Proof("the customer has rows before that moment", bool(rows)))
    shown = [{name: value for name, value in row.items() if name != "user_id"} for row in rows[-LAST_ROWS:]]
    return Link("source rows", facts, proofs, shown)


def source_id(settings: Stages, user_id: str, announce: Callable[[str], None]) -> str | None:
    """The customer as the source writes it; None if the source no longer has it. Raises DataError without
    the key that masked the records."""
    from pipelines.source_ids import COLUMN, SourceIds

    batch = pa.RecordBatch.from_pydict({"user_id": [user_id]})
    found = SourceIds(settings, announce)(batch)[COLUMN][0].as_py()
    return None if found is None else str(found)


def _of(user_id: str, column: str, moment: datetime) -> ds.Expression:
    return (ds.field("user_id") == user_id) & (ds.field(column) == pa.scalar(moment, MOMENT))


def _equal(record: Mapping[str, Any], row: pa.Table, spec: Mapping[str, Any]) -> Proof:
    """Whether each input of the network has the value that the snapshot has, except for what-if values."""
    columns = model_columns(row.combine_chunks().to_batches()[0], spec)
    scored = features_of(record)
    compared = [name for name in scored if name in columns and name not in record["overridden"]]
    differ = [name for name in compared if not _same_value(scored[name], columns[name][0])]
    if differ:
        return Proof(f"{len(differ)} of {len(compared)} features differ: {', '.join(sorted(differ))}", False)
    return Proof(f"all {len(compared)} features equal the snapshot's", bool(compared))


def _same_value(one: Any, other: Any) -> bool:
    """Equal numbers or texts; null and NaN are the same missing value."""
    missing = [value is None or value != value for value in (one, other)]
    return all(missing) if any(missing) else bool(one == other)

"""Canonical records for the feature tests, written as `churn ingest` promises them."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from core.workspace import Workspace
from handlers.identity import mask
from support.cdnow import cdnow_log

CONFIG = Path(__file__).parents[2] / "configs" / "features.yaml"
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("amount", pa.float64()),
        ("quantity", pa.float64()),
    ]
)


def write_transactions(
    root: Path, log: pd.DataFrame, start: datetime | None = None, end: datetime | None = None
) -> Workspace:
    """`log` (user_id, timestamp, amount, quantity, further columns) as sorted records with a manifest."""
    files = Workspace(root)
    log = log.sort_values(["user_id", "timestamp"], kind="stable")
    further = pa.Table.from_pandas(log.drop(columns=SCHEMA.names), preserve_index=False).schema
    schema = pa.schema([*SCHEMA, *further])
    pq.write_table(pa.Table.from_pandas(log, schema=schema, preserve_index=False), records_part(files))
    last = log["timestamp"].max().to_pydatetime()
    midnight = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
    write_manifest(
        files, "transactions", len(log), start or log["timestamp"].min().to_pydatetime(), end or midnight
    )
    return files


def write_labelled(root: Path, table: pd.DataFrame) -> Workspace:
    """`table` (user_id, event_timestamp, target, any columns) as records with a manifest."""
    files = Workspace(root)
    arrow = pa.Table.from_pandas(table.sort_values("user_id"), preserve_index=False)
    at = arrow.schema.get_field_index("event_timestamp")
    arrow = arrow.set_column(
        at, "event_timestamp", arrow["event_timestamp"].cast(pa.timestamp("us", tz="UTC"))
    )
    pq.write_table(arrow, records_part(files))
    times = table["event_timestamp"]
    write_manifest(files, "labelled", len(table), times.min().to_pydatetime(), times.max().to_pydatetime())
    return files


def records_part(files: Workspace, name: str = "base-000.parquet") -> Path:
    """A part of the records, to be written or read."""
    files.records.mkdir(parents=True, exist_ok=True)
    return files.records / name


def write_manifest(files: Workspace, shape: str, rows: int, start: datetime, end: datetime) -> None:
    digest = hashlib.sha256(b"".join(part.read_bytes() for part in sorted(files.records.iterdir())))
    manifest: dict[str, Any] = {
        "schema_version": 1,
        "shape": shape,
        "output_sha256": digest.hexdigest(),
        "rows": rows,
        "window": {"start": start.isoformat(), "end": end.isoformat()},
    }
    files.manifest.write_text(json.dumps(manifest))


def cdnow() -> pd.DataFrame:
    """The real log, masked with a key of the tests."""
    log = cdnow_log()
    ids = {user: mask(str(int(user)), b"key of the tests") for user in log["customer"].unique()}
    log = log.assign(user_id=log["customer"].map(ids), timestamp=log["timestamp"].dt.as_unit("ns"))
    return log[["user_id", "timestamp", "amount", "quantity"]]

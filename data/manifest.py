"""What a written dataset says of itself: enough to know whether two are the same, and what made one."""

import hashlib
import json
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data.clean import Cleaned
from data.config import DataConfig, utc_text
from data.readers import public_uri
from data.sources import as_table

MASKING = "hmac-sha256-128"


def describe(
    config: DataConfig, cleaned: Cleaned, *, customers: int, input_sha256: str, output_sha256: str
) -> dict[str, Any]:
    """The manifest. No time of making: equal input, config, key and code give equal bytes."""
    source, records = as_table(config), cleaned.records
    return {
        "schema_version": 1,
        "shape": config.shape,
        "source": {"kind": config.source.kind, "uri": public_uri(source)},
        "input_sha256": input_sha256,
        "output_sha256": output_sha256,
        "rows": records.num_rows,
        "rejected_rows": cleaned.rejected.num_rows,
        "customers": customers,
        "window": _window(records),
        "schema": {f.name: "string" if f.name == "user_id" else str(f.type) for f in records.schema},
        "config_sha256": hashlib.sha256(_json(config.model_dump(mode="json")).encode()).hexdigest(),
        "code_version": code_version(),
        "id_type": source.user_id_type,
        "masking": MASKING,
    }


def write_json(path: Path, content: Any) -> None:
    path.write_text(_json(content) + "\n", encoding="utf-8")


def code_version() -> str:
    """The release, and a digest of the code that makes a dataset: it changes when the rows may."""
    digest = hashlib.sha256()
    rooms = Path(__file__).resolve().parent
    for file in (*sorted(rooms.glob("*.py")), rooms.parent / "handlers" / "identity.py"):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return f"{version('churn-prediction')}+{digest.hexdigest()[:12]}"


def _window(records: pa.Table) -> dict[str, str]:
    """Whole days, UTC: from the midnight before the first event to the midnight after the last one."""
    times = records["timestamp" if "timestamp" in records.column_names else "event_timestamp"]
    first, last = (pc.floor_temporal(edge, unit="day").as_py() for edge in (pc.min(times), pc.max(times)))
    return {"start": utc_text(first), "end": utc_text(last + timedelta(days=1))}


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)

"""The manifest of a version: it identifies the data, and records the source, config and code that made it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.config import DataConfig, utc_text
from data.prepare.parts import Part, digest_of
from data.source.readers import public_uri
from data.source.sources import as_table
from handlers.identity import key_check

MASKING = "hmac-sha256-128"
ADDRESS = ("uri", "query", "table", "sheet")
"""Settings of a source that define its location, not how it is read."""


@dataclass(frozen=True)
class Dataset:
    """What an ingest wrote."""

    parts: Sequence[Part]
    schema: pa.Schema
    customers: int
    """Number of customers with a purchase."""
    input_sha256: str
    counts: Mapping[str, int]
    """Numbers of rows: source_rows, left_out_rows, rejected_rows, duplicate_rows."""
    stayed: Sequence[str]
    """The normalised values of the target that do not mean churned."""


def describe(config: DataConfig, key: bytes, dataset: Dataset) -> dict[str, Any]:
    """Return the manifest. It has no creation time: equal input, config, key and code give equal bytes."""
    source = as_table(config)
    return {
        "schema_version": 2,
        "shape": config.shape,
        "source": {"kind": config.source.kind, "uri": public_uri(source)},
        "input_sha256": dataset.input_sha256,
        **_of_parts(dataset.parts),
        **dataset.counts,
        "customers": dataset.customers,
        "schema": {field.name: str(field.type) for field in dataset.schema},
        "config_sha256": hashlib.sha256(_json(config.model_dump(mode="json")).encode()).hexdigest(),
        "mapping_sha256": mapping_sha256(config),
        "code_version": code_version(),
        "id_type": source.user_id_type,
        "masking": MASKING,
        "key_check": key_check(key),
        **({"stayed": list(dataset.stayed)} if config.shape == "labelled" else {}),
        "deliveries": [],
    }


def appended(
    manifest: Mapping[str, Any], parts: Sequence[Part], customers: int, delivery: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the manifest with one more delivery."""
    own = _of_parts(parts)
    deliveries = [*manifest["deliveries"], dict(delivery)]
    return {**manifest, **own, "customers": customers, "deliveries": deliveries}


def reduced(manifest: Mapping[str, Any], parts: Sequence[Part], customers: int, rows: int) -> dict[str, Any]:
    """Return the manifest after the erasure of `rows` rows."""
    erased = manifest.get("erased_rows", 0) + rows
    return {**manifest, **_of_parts(parts), "customers": customers, "erased_rows": erased}


def parts_in(manifest: Mapping[str, Any]) -> list[Part]:
    return [Part(**part) for part in manifest["parts"]]


def mapping_sha256(config: DataConfig) -> str:
    """The sha256 of all settings that define how source rows become records, except the location."""
    source = as_table(config).model_dump(mode="json", exclude=set(ADDRESS))
    source["options"].pop("storage_options", None)
    mapping = {"shape": config.shape, "source": source, "observed_at": str(config.observed_at)}
    return hashlib.sha256(_json(mapping).encode()).hexdigest()


def write_json(path: Path, content: Any) -> None:
    path.write_text(_json(content) + "\n", encoding="utf-8")


def code_version() -> str:
    """The release, and a digest of the code that makes a dataset. It changes when the code changes."""
    digest = hashlib.sha256()
    room = Path(__file__).resolve().parent
    for file in (*sorted(room.rglob("*.py")), room.parent / "handlers" / "identity.py"):
        digest.update(str(file.relative_to(room.parent)).encode() + b"\0" + file.read_bytes())
    return f"{version('churn-prediction')}+{digest.hexdigest()[:12]}"


def _of_parts(parts: Sequence[Part]) -> dict[str, Any]:
    return {
        "output_sha256": digest_of(parts),
        "rows": sum(part.rows for part in parts),
        "window": _window(parts),
        "newest": utc_text(_moment(max(part.last for part in parts))),
        "parts": [part.record() for part in parts],
    }


def _window(parts: Sequence[Part]) -> dict[str, str]:
    """Whole days in UTC, from the midnight before the first event to the midnight after the last one."""
    first = _moment(min(part.first for part in parts))
    last = _moment(max(part.last for part in parts))
    return {"start": utc_text(_midnight(first)), "end": utc_text(_midnight(last) + timedelta(days=1))}


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _moment(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)

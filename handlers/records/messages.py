"""Reads back what handlers/records/kafka.py writes: records of predictions from the messages of a topic."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

FEATURE = "feature_"


def record_of(message: bytes | None) -> dict[str, Any] | None:
    """The record in a message, with times; None for a message that is none."""
    try:
        record = json.loads(message or b"")
        for name in ("time", "features_at"):
            record[name] = None if record[name] is None else datetime.fromisoformat(record[name])
        return record if isinstance(record["user_id"], str) and record["time"] is not None else None
    except (ValueError, KeyError, TypeError):
        return None


def table_of(records: Sequence[Mapping[str, Any]], types: Mapping[str, str]) -> "pa.Table":
    """A row for each record, as a segment in Parquet has it. `types`: input of the network -> its declared
    type; that of another input is derived from its values."""
    import pyarrow as pa

    from handlers.records.record import Origin, schema_of

    names = dict.fromkeys(
        name.removeprefix(FEATURE) for record in records for name in record if name.startswith(FEATURE)
    )
    known = {
        name: types.get(name) or _kind([record.get(FEATURE + name) for record in records]) for name in names
    }
    return pa.Table.from_pylist(list(records), schema_of(Origin("", "", "", 0.0, known)))


def _kind(values: Sequence[Any]) -> str:
    return "string" if any(isinstance(value, str) for value in values) else "float64"

"""The records of the prediction log, and their conversion to Arrow.

The schema, which is the same for all models except for the features:

| column | type | |
|---|---|---|
| request_id | string | as in the answer |
| trace_id | string | of the caller's `traceparent` (W3C), 32 hex digits; null without one |
| time | timestamp[us, UTC] | when the features were read |
| model_version, bundle_sha256 | string | which archive |
| variant | string | the deployment: stable, canary |
| user_id | string | masked |
| features_at | timestamp[us, UTC] | the moment of the features; null for an unknown customer |
| status | string | ok, stale, degraded, unknown |
| overridden | list of string | features that the client gave in a what-if question |
| score, threshold | double | |
| decision | string | High Risk or Low Risk |
| latency_ms | double | of the batch of the request |
| dropped_before | int64 | records that this worker dropped since its last one that was written |
| feature_<name> | int64, double or string | each input of the network, null if missing |

`read_parquet('<folder>/*/*.parquet', union_by_name = true)` in DuckDB and `pandas.read_parquet('<folder>')`
read it, with an additional column `date` from the names of the folders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, groupby, repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from handlers.store.columns import PackedColumns

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Records:
    """The scores of one batch to be logged. `rows` has an entry for each record, the columns one for each
    row.
    """

    time: datetime
    latency_ms: float
    request_ids: Sequence[str]
    """One for each record."""
    rows: Sequence[int]
    """Record -> row; several requests may contain the same customer."""
    user_ids: Sequence[str]
    timestamps: Sequence[datetime | None]
    status: Sequence[str]
    scores: Sequence[float]
    columns: Mapping[str, Sequence[Any]]
    overridden: Mapping[int, Sequence[str]]
    """Row -> names; only rows of what-if questions."""
    trace_ids: Sequence[str | None] = ()
    """One for each record; empty: no request of the batch belongs to a trace."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What all records of this worker have in common."""

    model_version: str
    bundle_sha256: str
    variant: str
    threshold: float
    types: Mapping[str, str]
    """Input of the network -> its declared type."""


def to_arrow(batches: Sequence[Records], origin: Origin, schema: "pa.Schema") -> "pa.RecordBatch":
    """One RecordBatch of all records, in the same order."""
    import pyarrow as pa

    # Packed features are converted as whole arrays.
    runs = [
        _arrow(list(run), origin, schema, packed=packed)
        for packed, run in groupby(batches, lambda batch: isinstance(batch.columns, PackedColumns))
    ]
    return runs[0] if len(runs) == 1 else pa.concat_batches(runs)


def _arrow(
    batches: Sequence[Records], origin: Origin, schema: "pa.Schema", *, packed: bool
) -> "pa.RecordBatch":
    import pyarrow as pa

    counts = [len(batch.rows) for batch in batches]
    total = sum(counts)
    scores = np.array(_gathered(batches, [batch.scores for batch in batches]), dtype=np.float64)
    risky = scores > origin.threshold

    def same(value: Any) -> "pa.Array":
        return pa.repeat(value, total)

    def a_batch(values: Sequence[Any], kind: "pa.DataType") -> "pa.Array":
        return pa.array(values, kind).take(np.repeat(np.arange(len(counts)), counts))

    columns = {
        "request_id": list(chain.from_iterable(batch.request_ids for batch in batches)),
        "trace_id": list(chain.from_iterable(b.trace_ids or repeat(None, len(b.rows)) for b in batches))
        if any(batch.trace_ids for batch in batches)
        else pa.nulls(total, pa.string()),
        "time": a_batch([batch.time for batch in batches], schema.field("time").type),
        "model_version": same(origin.model_version),
        "bundle_sha256": same(origin.bundle_sha256),
        "variant": same(origin.variant),
        "user_id": _gathered(batches, [batch.user_ids for batch in batches]),
        "features_at": _gathered(batches, [batch.timestamps for batch in batches]),
        "status": _gathered(batches, [batch.status for batch in batches]),
        "overridden": [batch.overridden.get(row, ()) for batch in batches for row in batch.rows]
        if any(batch.overridden for batch in batches)
        else pa.ListArray.from_arrays(np.zeros(total + 1, np.int32), pa.array([], pa.string())),
        "score": scores,
        "threshold": same(origin.threshold),
        "decision": np.where(risky, "High Risk", "Low Risk"),
        "latency_ms": a_batch([batch.latency_ms for batch in batches], schema.field("latency_ms").type),
        "dropped_before": same(0),
    }
    if packed:
        together = PackedColumns.joined([_taken(batch) for batch in batches])
        columns |= {
            f"feature_{name}": _feature(together, name, dtype) for name, dtype in origin.types.items()
        }
    else:
        for name in origin.types:
            columns[f"feature_{name}"] = _gathered(batches, [batch.columns[name] for batch in batches])
    arrays = [
        columns[field.name].cast(field.type)
        if isinstance(columns[field.name], pa.Array)
        else pa.array(columns[field.name], type=field.type, from_pandas=True)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def with_dropped(batch: "pa.RecordBatch", dropped: int) -> "pa.RecordBatch":
    """The same records, of which the first one states that so many were dropped before it."""
    import pyarrow as pa

    place = batch.schema.get_field_index("dropped_before")
    counts = np.zeros(batch.num_rows, np.int64)
    counts[0] = dropped
    return batch.set_column(place, batch.schema.field(place), pa.array(counts))


def _taken(batch: Records) -> PackedColumns:
    """The features of the records of a batch."""
    columns = batch.columns
    assert isinstance(columns, PackedColumns)
    return columns if batch.rows == range(len(columns.rows)) else columns.taken(batch.rows)


def _feature(columns: PackedColumns, name: str, dtype: str) -> Any:
    """The values for `pa.array`: an array with NaN for null, or one of integers with a mask."""
    if dtype == "float64":
        return columns.numbers(name)
    if dtype == "int64":
        import pyarrow as pa

        numbers, there = columns.numbers(name), columns.there(name)
        return pa.array(np.where(there, numbers, 0).astype(np.int64), mask=~there)
    return columns[name]


def _gathered(batches: Sequence[Records], columns: Sequence[Sequence[Any]]) -> list[Any]:
    """The values of all records; `columns` has one column for each batch."""
    values: list[Any] = []
    for batch, column in zip(batches, columns, strict=True):
        held = column.tolist() if isinstance(column, np.ndarray) else column
        if batch.rows == range(len(held)):
            values.extend(held)
        else:
            values.extend(map(held.__getitem__, batch.rows))
    return values


def schema_of(origin: Origin) -> "pa.Schema":
    """The schema of the records of a model."""
    import pyarrow as pa  # in the thread of the log, so that the start of a worker does not wait for it

    text, moment, number = pa.string(), pa.timestamp("us", tz="UTC"), pa.float64()
    fixed = [
        ("request_id", text), ("trace_id", text), ("time", moment), ("model_version", text),
        ("bundle_sha256", text), ("variant", text), ("user_id", text), ("features_at", moment),
        ("status", text), ("overridden", pa.list_(text)), ("score", number), ("threshold", number),
        ("decision", text), ("latency_ms", number), ("dropped_before", pa.int64()),
    ]  # fmt: skip
    kinds = {"int64": pa.int64(), "float64": number, "string": text}
    return pa.schema([*fixed, *((f"feature_{name}", kinds[kind]) for name, kind in origin.types.items())])

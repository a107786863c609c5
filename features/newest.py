"""Each customer's newest snapshot, for the online store and for lists of customers."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from core.workspace import Workspace
from features.database import open_database, parquet
from features.reads import quoted
from features.spec import FeaturesConfig

ROWS = 5_000
"""Customers per batch."""


def newest(
    spec: FeaturesConfig,
    files: Workspace,
    record: Mapping[str, Any],
    columns: Sequence[str] | None = None,
    *,
    moment: datetime | None = None,
    rows: int = ROWS,
) -> Iterator[pa.RecordBatch]:
    """Yield batches of the given columns, or of all, in the order of the snapshots.

    For a log: all customers who are eligible at `moment` (default: the latest snapshot). For a labelled
    table: the latest row of each customer, because a customer may have several.
    """
    if record["shape"] == "transactions":
        at = moment or datetime.fromisoformat(record["latest"])
        scanner = ds.dataset(files.snapshots).scanner(
            columns=None if columns is None else list(columns),
            filter=ds.field("event_timestamp") == pa.scalar(at, pa.timestamp("us", tz="UTC")),
            batch_size=rows,
            batch_readahead=2,
            fragment_readahead=1,
            use_threads=False,
        )
        yield from (batch for batch in scanner.to_batches() if batch.num_rows)
        return
    listed = "*" if columns is None else ", ".join(map(quoted, columns))
    snapshots = parquet(files.snapshots)
    with open_database(spec, files.features / "spill") as connection:
        yield from connection.sql(
            f"""SELECT {listed} FROM {snapshots} WHERE (user_id, event_timestamp) IN
                (SELECT (user_id, max(event_timestamp)) FROM {snapshots} GROUP BY user_id)"""
        ).to_arrow_reader(rows)


def count_newest(
    spec: FeaturesConfig, files: Workspace, record: Mapping[str, Any], moment: datetime | None = None
) -> int:
    """The number of customers that `newest` returns."""
    keys = newest(spec, files, record, ["user_id"], moment=moment, rows=100_000)
    return sum(batch.num_rows for batch in keys)

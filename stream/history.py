"""The purchases of the records, which the state starts with."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from core.workspace import Workspace
from data.config import DataConfig
from data.prepare.parts import INDEX
from data.records.folder import parts
from data.records.versions import current_manifest
from data.source.sources import as_table
from stream.errors import StreamError
from stream.purchases import Purchase
from stream.state import State, fact_of

ROWS = 5_000
LOADED = "records"
"""The fact that names the records that are in the state."""


def loaded(uri: str) -> bool:
    """Whether there is a state at `uri` that has records. Makes no database and no tables.

    Raises StreamError for an address that cannot be used, StoreAway while the database cannot be reached.
    """
    return fact_of(uri, LOADED) is not None


def load_records(
    config: DataConfig, files: Workspace, state: State, further: Mapping[str, pa.DataType]
) -> int:
    """Add the purchases of the current records that the state does not have; returns their number.

    With a `transaction_id` in the source this may be repeated after each ingest. Without one, equal purchases
    of records and topic cannot be recognised, so it is done once, with records that have no purchase of the
    topic. Raises StreamError the second time.
    """
    sha256 = str(current_manifest(files)["output_sha256"])
    known = state.fact(LOADED)
    if known is not None and known != sha256 and "transaction_id" not in as_table(config).given:
        raise StreamError(
            "stream.state has other records already, and without data.source.columns.transaction_id their"
            " purchases cannot be distinguished from those of the topic; name an empty database and a new"
            " stream.group"
        )
    new = state.load(_batches(files, list(further)))
    state.note(LOADED, sha256)
    return new


def _batches(files: Workspace, further: list[str]) -> Iterator[list[Purchase]]:
    for part in parts(files):
        identities = _identities(pq.read_table(files.data / INDEX / part.name))
        done = 0
        with pq.ParquetFile(part) as rows:
            for batch in rows.iter_batches(ROWS):
                yield _purchases(batch, identities[done : done + batch.num_rows].tolist(), further)
                done += batch.num_rows


def _purchases(batch: pa.RecordBatch, identities: list[int], further: list[str]) -> list[Purchase]:
    users = batch["user_id"].to_pylist()
    moments = batch["timestamp"].cast(pa.int64()).to_pylist()
    amounts, quantities, returns = (batch[name].to_pylist() for name in ("amount", "quantity", "is_return"))
    others = [batch[name].to_pylist() for name in further]
    return [
        Purchase(
            user, identities[at], moments[at], amounts[at], quantities[at], returns[at],
            tuple(one[at] for one in others),
        )
        for at, user in enumerate(users)
    ]  # fmt: skip


def _identities(index: pa.Table) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """int64 [rows of the part]: the key of the transaction; without one, the hash of the row, distinct for
    equal rows too."""
    keys, hashes = (index[name].to_numpy() for name in ("key", "hash"))
    times = pd.Series(hashes).groupby(hashes, sort=False).cumcount().to_numpy().astype(np.uint64)
    unnamed = hashes + times * np.uint64(0x9E3779B97F4A7C15)  # distinct for equal rows
    chosen: np.ndarray[Any, np.dtype[np.int64]] = np.where(keys != 0, keys, unnamed).view(np.int64)
    return chosen

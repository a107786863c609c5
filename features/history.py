"""Training rows by Feast's point-in-time join: for each label, the features that were known at its time."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.errors import FeatureError
from core.workspace import Workspace
from features.lean_feast import FeatureStore, quiet
from features.spec import FeaturesConfig
from features.store import open_store

CHUNK_ROWS = 100_000
"""Entity rows per query. The on-demand view uses Python lists, which need about 1 kB per row of a chunk."""

_ROW = "entity_row"

log = logging.getLogger("churn.features")


def training_set(
    spec: FeaturesConfig, files: Workspace, progress: Callable[[str], None] = log.info
) -> pd.DataFrame:
    """user_id, event_timestamp, churned, then the spec's numeric and categorical inputs; a row per label.

    Feast's point-in-time join returns the values of the service, including derived ones. Raises FeatureError
    when labels are missing, or when the join loses a row, changes its time, or finds no snapshot within the
    ttl.
    """
    store = open_store(spec, files)
    if not files.labels.is_file():
        raise FeatureError(f"{files.labels}: not there; run `churn features build` first")
    labels = pq.ParquetFile(files.labels)
    if labels.metadata.num_rows == 0:
        raise FeatureError(f"{files.labels}: no labels; build features without as_of")
    chunks: list[pa.Table] = []
    done = 0
    for batch in labels.iter_batches(CHUNK_ROWS):
        chunks.append(point_in_time(spec, store, pa.Table.from_batches([batch])))
        done += batch.num_rows
        progress(f"training set: {done:,} of {labels.metadata.num_rows:,} rows")
    table: pd.DataFrame = pa.concat_tables(chunks).to_pandas()
    return table


def point_in_time(spec: FeaturesConfig, store: FeatureStore, entities: pa.Table) -> pa.Table:
    """Append the spec's inputs to `entities` (user_id, event_timestamp, other columns); the rows stay in
    order.

    Raises FeatureError when the offline store loses or changes a row.
    """
    numbered = entities.append_column(_ROW, pa.array(np.arange(entities.num_rows)))
    with _bounded_duckdb(spec, store.config.repo_path), quiet():
        job = store.get_historical_features(
            entity_df=numbered.to_pandas(),
            features=store.get_feature_service(spec.service),
            filter_by_created_timestamp=True,  # without it, later corrections would leak into the past
        )
        found = job.to_arrow().sort_by(_ROW)
    _assert_complete(spec, numbered, found)
    inputs = found.select([*spec.numeric, *spec.categorical])
    return pa.table(
        [*entities.columns, *inputs.columns], names=[*entities.column_names, *inputs.column_names]
    )


def _assert_complete(spec: FeaturesConfig, requested: pa.Table, found: pa.Table) -> None:
    """Some offline stores silently drop rows; training must not continue with the rest."""
    if found.num_rows != requested.num_rows:
        raise FeatureError(
            f"the offline store returned {found.num_rows} of {requested.num_rows} training rows; "
            "set features.offline_store to {type: duckdb}"
        )
    for key in (_ROW, "user_id", "event_timestamp"):
        if not pc.all(pc.equal(found[key].cast(requested[key].type), requested[key])).as_py():
            raise FeatureError(
                f"the offline store changed {key} of a training row; check features.offline_store"
            )
    whole = [f.name for f in spec.features if f.dtype == "int64"]  # never null in a snapshot
    if lost := max((found[name].null_count for name in whole), default=0):
        raise FeatureError(
            f"{lost} of {requested.num_rows} training rows have no snapshot within features.ttl_days "
            f"({spec.ttl_days}); run `churn features build` again"
        )


@contextmanager
def _bounded_duckdb(spec: FeaturesConfig, folder: Path | None) -> Iterator[None]:
    """Bound memory and threads of ibis' default connection, in which Feast's DuckDB store computes."""
    before = ibis.options.default_backend
    settings = {"memory_limit": spec.memory_limit, **({"threads": spec.threads} if spec.threads else {})}
    with tempfile.TemporaryDirectory(prefix="spill-", dir=folder) as spill:
        connection = ibis.duckdb.connect(":memory:", temp_directory=spill, **settings)
        ibis.options.default_backend = connection
        try:
            yield
        finally:
            ibis.options.default_backend = before
            connection.disconnect()

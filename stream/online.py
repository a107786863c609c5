"""Pushes vectors into the online store through Feast's push source."""

from typing import Any

import pyarrow as pa

from core.workspace import Workspace
from features.online_stores import online_store_of
from features.spec import FeaturesConfig
from features.store import open_store
from stream.errors import StoreAway

# isort: split
from feast.data_source import PushMode


class Online:
    """The registered store of a workspace. Raises FeatureError when it is not registered for this spec."""

    def __init__(self, spec: FeaturesConfig, files: Workspace) -> None:
        self._source = f"{spec.view}_push"
        self._errors: tuple[type[Exception], ...] = (*online_store_of(spec).errors, OSError)
        self._store: Any = open_store(spec, files)

    def push(self, vectors: pa.Table) -> None:
        """Write the vectors, which have the columns of customer_snapshots. Raises StoreAway."""
        if not vectors.num_rows:
            return
        try:
            self._store.push(self._source, vectors.to_pandas(), to=PushMode.ONLINE)
        except self._errors as error:
            raise StoreAway(f"features.online_store: {type(error).__name__}") from None

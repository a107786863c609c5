"""Identifiers as the source writes them, for a user who has the mask key and has to contact customers.

A masked identifier cannot be converted back. So the source is read again, its identifiers are masked, and
equal masked identifiers are matched.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa

from core.errors import DataError
from data.config import DataConfig, TableSource, utc_text
from data.mask import Masker, load_key, masks_as_text
from data.records.versions import current_manifest
from data.source.sources import as_table, open_source
from handlers.identity import key_check
from pipelines.context import Context, Stages

COLUMN = "source_id"


class SourceIds:
    """Adds the column `source_id` (text) after `user_id`; null for customers no longer in the source."""

    def __init__(self, settings: Stages, progress: Callable[[str], None]) -> None:
        """Raises DataError for a missing source, or records that were masked with another key."""
        progress("reading the source's identifiers")
        key = load_key(settings.data, settings.files)
        if current_manifest(settings.files)["key_check"] != key_check(key):
            raise DataError(
                "--source-ids: the records were masked with another key; only its holder can name customers"
            )
        found = [part for config in _sources(settings) for part in _masked(config, key)]
        ids = pd.concat(found)
        self._ids = ids[~ids.index.duplicated()]

    def __call__(self, customers: pa.RecordBatch) -> pa.RecordBatch:
        names = self._ids.reindex(customers["user_id"].to_pandas())
        column = pa.array(names.to_numpy(dtype=object), pa.string(), from_pandas=True)
        at = customers.schema.names.index("user_id") + 1
        return customers.add_column(at, COLUMN, column)


def record_naming(context: Context, out: Path, rows: int, as_of: str) -> None:
    """Appends to the audit log who wrote a list with the source's identifiers, when, where, how long."""
    line = {
        "when": utc_text(context.as_of),
        "who": context.who,
        "file": str(out.absolute()),
        "rows": rows,
        "as_of": as_of,
    }
    handle = os.open(context.files.named_lists, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(handle, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _sources(settings: Stages) -> Iterator[DataConfig]:
    """The source as configured, and what was appended to it."""
    yield settings.data
    source = settings.data.source
    if isinstance(source, TableSource):
        for delivery in current_manifest(settings.files)["deliveries"]:
            appended = source.model_copy(update={"uri": delivery["uri"]})
            yield settings.data.model_copy(update={"source": appended})


def _masked(config: DataConfig, key: bytes) -> Iterator["pd.Series[str]"]:
    from data.prepare.clean import Cleaner
    from data.source.columns import columns_to_read

    source = as_table(config)
    cleaner, masker = Cleaner(config, source, ()), Masker(source.user_id_type, key)
    for cleaned in cleaner.chunks(open_source(config, columns_to_read(config, source, ())).chunks()):
        ids = cleaned.records["user_id"].unique()
        if len(ids):
            masks = masks_as_text(*masker.halves(pa.chunked_array([ids])))
            yield pd.Series([str(one) for one in ids.to_pylist()], index=masks.to_pandas())

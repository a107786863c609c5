"""Raw identifiers of customers of the source, for example requests with real customers."""

import numpy as np
import pyarrow as pa

from data.config import DataConfig
from data.prepare.clean import clean
from data.source.columns import columns_to_read
from data.source.sources import as_table, open_source

SAMPLED_ROWS = 200_000


def sample_user_ids(config: DataConfig, n: int) -> list[int | str]:
    """Return up to `n` raw identifiers, always the same, from the first SAMPLED_ROWS rows of the source."""
    source = as_table(config)
    reading = open_source(config, columns_to_read(config, source), SAMPLED_ROWS)
    cleaned = clean(pa.concat_tables(reading.chunks()), source, config)
    known: list[int | str] = cleaned.records["user_id"].unique().to_pylist()
    spread = np.linspace(0, len(known) - 1, min(n, len(known)), dtype=int)
    return [known[i] for i in spread]

"""What the tests of this room share: a clock, a key, a log, and the CDNOW config."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from data.config import DataConfig
from data.source.sources import open_source

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "k" * 40

Configure = Callable[..., DataConfig]
Ingest = Callable[..., dict[str, Any]]

LOG = (
    "customer,when,paid\nann,2024-01-05,10.5\nbob,2024-02-01T09:30:00,3\nann,2024-03-01T00:00:00+02:00,7.25\n"
)


def cdnow(**changes: Any) -> DataConfig:
    return DataConfig.model_validate(
        {"shape": "transactions", "source": {"kind": "cdnow"}, "expectations": [], **changes}
    )


@dataclass(frozen=True)
class Whole:
    table: pa.Table
    sha256: str


def read(config: DataConfig, **arguments: Any) -> Whole:
    """All chunks of a source as one table."""
    reading = open_source(config, **arguments)
    return Whole(pa.concat_tables(reading.chunks()), reading.sha256)

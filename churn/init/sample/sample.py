"""The sample of a source, and how ingest has to read the whole source."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from churn.init.belief import Notes
from churn.init.dialect import footer_of

MOST_ROWS = 300_000
MOST_FOOTER_ROWS = 5


@dataclass
class Sample:
    """The rows that are examined, and the settings with which ingest reads the whole source."""

    uri: str
    kind: str
    """csv, parquet or excel."""
    table: pa.Table
    whole: bool
    """Whether the table contains all rows of the source."""
    looked_at: str
    """What was read, in words."""
    rows: int | None = None
    """The number of rows of the whole source; None if only reading it would give the number."""
    options: dict[str, Any] = field(default_factory=dict)
    """`data.source.options`."""
    sheet: str | None = None
    modified: datetime | None = None
    descriptions: dict[str, str] = field(default_factory=dict)
    """Column -> its description in a second header line."""


def without_footer(frame: pd.DataFrame, notes: Notes) -> pd.DataFrame:
    """The rows without totals at the end, of which a finding is noted."""
    filled = [float(frame[name].iloc[:-MOST_FOOTER_ROWS].notna().mean()) for name in frame.columns]
    ends = 0
    while ends < min(MOST_FOOTER_ROWS, len(frame) - 20):
        row = [None if pd.isna(cell) else str(cell) for cell in frame.iloc[len(frame) - 1 - ends]]
        if not footer_of(row, filled):
            break
        ends += 1
    if not ends:
        return frame
    words = next((str(c) for c in frame.iloc[-1] if not pd.isna(c)), "blanks")
    notes.found("last lines", f"{ends} left out", f"{words!r}: a total, not a record; ingest rejects it")
    return frame.iloc[: len(frame) - ends]

"""The ledger of a replay: one line of canonical JSON for each thing that was measured, decided or done.

Equal replays write equal bytes: keys are sorted, numbers have nine significant digits, and nothing that
depends on the machine or the present time is in it.
"""

import json
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

DIGITS = 9


class Ledger:
    """Appends to a file that must not exist yet; each line is on the disk when `write` returns."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("x", encoding="utf-8")
        self.rows: list[dict[str, Any]] = []

    def write(self, at: datetime, what: str, **content: Any) -> None:
        """Append what happened at the simulated time `at`."""
        row = {"at": at.isoformat(), "what": what, **{key: plain(value) for key, value in content.items()}}
        self.rows.append(row)
        self._file.write(json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def plain(value: Any) -> Any:
    """As JSON: floats rounded, NaN as null, times as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value

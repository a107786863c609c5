"""When each API key was used last: Envoy logs the use of each key in a file of its own.

For each key it writes at most one line in five minutes (configs/gateway/keys.lua), so that the cost is
negligible.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.workspace import Workspace, write_atomically

LOG_BYTES = 5_000_000


class KeyUse:
    def __init__(self, files: Workspace) -> None:
        self.log = log_file(files)
        self._summary = files.serving / "key-use.json"

    def last(self) -> Mapping[str, str]:
        """Name of a key -> time of its last logged use, as ISO 8601 in UTC."""
        last: dict[str, str] = {}
        for entry in (*self._summarized(), *self._logged()):
            name, time = str(entry["key"]), str(entry["time"])
            last[name] = max(last.get(name, ""), time)
        return last

    def full(self) -> bool:
        """Whether the log is larger than LOG_BYTES."""
        return self.log.exists() and self.log.stat().st_size > LOG_BYTES

    def fold(self) -> None:
        """Write the last use of each key to a file and move the log away. Envoy must then reopen its logs."""
        entries = [{"key": name, "time": time} for name, time in sorted(self.last().items())]
        write_atomically(self._summary, json.dumps(entries) + "\n")
        self.log.replace(self.log.with_suffix(".1.log"))

    def _summarized(self) -> list[dict[str, Any]]:
        try:
            return list(json.loads(self._summary.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            return []

    def _logged(self) -> list[dict[str, Any]]:
        if not self.log.exists():
            return []
        found = []
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found.append(dict(json.loads(line)))
            except ValueError:
                continue  # the last line, which Envoy has not written completely
        return found


def log_file(files: Workspace) -> Path:
    return files.serving / "logs" / "key-use.log"

"""When each API key was used last: Envoy notes each key's use every few minutes, in a log of its own.

A line a key and five minutes (configs/gateway/keys.lua), so that noting costs nothing beside the requests.
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
        self._known = files.serving / "key-use.json"

    def last(self) -> Mapping[str, str]:
        """Name of a key -> when its use was noted last, as ISO 8601 in UTC."""
        last: dict[str, str] = {}
        for entry in (*self._before(), *self._lines()):
            name, time = str(entry["key"]), str(entry["time"])
            last[name] = max(last.get(name, ""), time)
        return last

    def full(self) -> bool:
        return self.log.exists() and self.log.stat().st_size > LOG_BYTES

    def fold(self) -> None:
        """Sum up the log in a file, an entry a key, and move the log away: Envoy has to reopen it."""
        entries = [{"key": name, "time": time} for name, time in sorted(self.last().items())]
        write_atomically(self._known, json.dumps(entries) + "\n")
        self.log.replace(self.log.with_suffix(".1.log"))

    def _before(self) -> list[dict[str, Any]]:
        try:
            return list(json.loads(self._known.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            return []

    def _lines(self) -> list[dict[str, Any]]:
        if not self.log.exists():
            return []
        found = []
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found.append(dict(json.loads(line)))
            except ValueError:
                continue  # the last line, half written
        return found


def log_file(files: Workspace) -> Path:
    return files.serving / "logs" / "key-use.log"

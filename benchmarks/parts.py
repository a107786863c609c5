"""Stores the results of a benchmark in parts, so that a run that was stopped continues where it ended.

Each part is a separate JSON file with a digest of the settings and the code that made it. A part with another
digest is computed again.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


class Parts:
    """The folder with the results of one benchmark."""

    def __init__(self, folder: Path, made_by: str, again: bool = False) -> None:
        """`again`: existing results are not used."""
        self.folder, self.made_by, self.again = folder, made_by, again

    def taken(self, name: str) -> Any | None:
        """The stored result of this part; None if there is none, or other code or settings made it."""
        file = self._file(name)
        if not file.is_file():
            return None
        record = json.loads(file.read_text(encoding="utf-8"))
        return record["result"] if record["made_by"] == self.made_by else None

    def save(self, name: str, result: Any) -> None:
        """Stores the result of the part `name`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"part": name, "made_by": self.made_by, "result": result})
        self._file(name).write_text(text, encoding="utf-8")

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """The result of `make` (lists, numbers and text), stored or computed now."""
        found = None if self.again else self.taken(name)
        if found is None:
            self.save(name, make())
            found = self.taken(name)
        return found

    def _file(self, name: str) -> Path:
        readable = "".join(sign if sign.isalnum() else "-" for sign in name)[:60]
        return self.folder / f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.json"


def digest(files: Iterable[Path], *settings: str) -> str:
    """Digest of the code and the settings that a result depends on."""
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    for setting in settings:
        total.update(setting.encode() + b"\0")
    return total.hexdigest()[:16]

"""Results of a benchmark, part by part, so that a run that was stopped goes on where it was.

A part is a JSON file of its own beside the others, and names what it was made by (settings, code); one that
was made by something else is made again.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


class Parts:
    def __init__(self, folder: Path, made_by: str, again: bool = False) -> None:
        """`again`: nothing that is there is taken."""
        self.folder, self.made_by, self.again = folder, made_by, again

    def taken(self, name: str) -> Any | None:
        """What is there of this part; None: nothing, or by other code or settings."""
        file = self._file(name)
        if not file.is_file():
            return None
        record = json.loads(file.read_text(encoding="utf-8"))
        return record["result"] if record["made_by"] == self.made_by else None

    def save(self, name: str, result: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"part": name, "made_by": self.made_by, "result": result})
        self._file(name).write_text(text, encoding="utf-8")

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returns, by now or before; lists, numbers and text."""
        found = None if self.again else self.taken(name)
        if found is None:
            self.save(name, make())
            found = self.taken(name)
        return found

    def _file(self, name: str) -> Path:
        readable = "".join(sign if sign.isalnum() else "-" for sign in name)[:60]
        return self.folder / f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.json"


def digest(files: Iterable[Path], *settings: str) -> str:
    """Of the code and the settings that a result depends on."""
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    for setting in settings:
        total.update(setting.encode() + b"\0")
    return total.hexdigest()[:16]

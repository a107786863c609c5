"""API keys of the gateway: 256 random bits each, kept as SHA-256 in a file of mode 600, shown once."""

import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock

from data.config import utc_text
from data.errors import ServingError
from data.private_file import read_private

OWN = "this-workspace"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Key:
    name: str
    sha256: str
    created: str


class Keys:
    """The keys in `file`; a running gateway takes a change within a second."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def all(self) -> tuple[Key, ...]:
        """Raises ServingError when the file is unreadable, or readable by others."""
        if not self._file.exists():
            return ()
        try:
            content = json.loads(read_private(self._file, "list of API keys", ServingError))
            return tuple(Key(**entry) for entry in content["keys"])
        except (ValueError, KeyError, TypeError):
            raise ServingError(f"{self._file}: not our list of keys; remove it, add the keys again") from None

    def changed(self) -> int:
        """Another number after each change of the file, or of who may read it."""
        try:
            return self._file.stat().st_ctime_ns
        except FileNotFoundError:
            return 0

    def add(self, name: str, now: datetime) -> str:
        """A new key, which no file holds: show it once. Raises ServingError on a bad or doubled name."""
        if not NAME.fullmatch(name):
            raise ServingError(f"key {name!r}: a name is 1 to 64 of letters, digits, . - _")
        key = secrets.token_urlsafe(32)
        with self._changing() as keys:
            if any(known.name == name for known in keys):
                raise ServingError(f"key {name}: there is one already; revoke it or choose another name")
            self._write((*keys, Key(name, digest(key), utc_text(now))))
        return key

    def revoke(self, name: str) -> None:
        """Raises ServingError when there is none of this name."""
        with self._changing() as keys:
            left = tuple(key for key in keys if key.name != name)
            if left == keys:
                known = ", ".join(key.name for key in keys) or "none"
                raise ServingError(f"key {name}: there is none of this name; there are {known}")
            self._write(left)

    @contextmanager
    def _changing(self) -> Iterator[tuple[Key, ...]]:
        """The keys as they are, while nobody else changes them."""
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(f"{self._file}.lock"):
            yield self.all()

    def _write(self, keys: Sequence[Key]) -> None:
        text = json.dumps({"keys": [asdict(key) for key in keys]}, indent=2) + "\n"
        replace_privately(self._file, text)


def first_key(keys: Keys, own: Path, now: datetime) -> None:
    """Where there are no keys yet, make one for this workspace's own client, in `own` (mode 600)."""
    if not keys.all():
        replace_privately(own, keys.add(OWN, now) + "\n")


def own_key(own: Path) -> str | None:
    """The key of this workspace's own client; None where there is none. Raises ServingError."""
    return read_private(own, "API key", ServingError).strip() if own.exists() else None


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def replace_privately(file: Path, text: str) -> None:
    """Write `file` whole or not at all, for our eyes only (mode 600)."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

"""API keys of the gateway: 256 random bits each, stored as SHA-256 in a file of mode 600, shown once."""

import hashlib
import json
import math
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from filelock import FileLock

from core.errors import ServingError
from core.private_file import read_private
from data.config import utc_text

OWN = "this-workspace"
"""Name of the key that this workspace's own client uses."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DIGEST = re.compile(r"[0-9a-f]{64}")
SCOPES = ("predict", "explain", "variant")
"""Scores; reasons and explanations, which cost far more; the choice of the variant, by x-churn-variant."""
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Key:
    """One key of a client. After a rotation, two keys have one name until the older one expires."""

    name: str
    sha256: str
    created: str
    """ISO 8601 in UTC, as `expires`."""
    expires: str | None = None
    """The time from which it is refused; None: never."""
    scopes: tuple[str, ...] = SCOPES
    requests_per_s: float | None = None
    """The client's own quota; None: `gateway.requests_per_s`."""

    def __post_init__(self) -> None:
        """Raises ValueError that begins with the field's name."""
        if not NAME.fullmatch(self.name):
            raise ValueError("name: 1 to 64 of letters, digits, . - _")
        if not DIGEST.fullmatch(self.sha256):
            raise ValueError("sha256: 64 hexadecimal digits")
        if not self.scopes or not set(self.scopes) <= set(SCOPES):
            raise ValueError(f"scopes: one or more of {', '.join(SCOPES)}")
        if self.expires is not None and datetime.fromisoformat(self.expires).tzinfo is None:
            raise ValueError("expires: a moment with its time zone")
        if self.requests_per_s is not None and not 0 < self.requests_per_s < math.inf:
            raise ValueError("requests_per_s: above 0")

    @property
    def ends(self) -> datetime:
        """`expires` as a time; the latest possible one for None."""
        return NEVER if self.expires is None else datetime.fromisoformat(self.expires)

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Self:
        """The key that an entry of the file describes."""
        return cls(**{**entry, "scopes": tuple(entry.get("scopes", SCOPES))})


class Keys:
    """The list of keys in a file. A running gateway applies a change within a second."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def all(self) -> tuple[Key, ...]:
        """Raises ServingError when the file cannot be read, or other users can read it."""
        if not self._file.exists():
            return ()
        try:
            content = json.loads(read_private(self._file, "list of API keys", ServingError))
            return tuple(Key.of(entry) for entry in content["keys"])
        except (ValueError, KeyError, TypeError):
            raise ServingError(f"{self._file}: not a list of keys; remove it, add the keys again") from None

    def changed(self) -> int:
        """A number that differs after each change of the file or of its mode."""
        try:
            return self._file.stat().st_ctime_ns
        except FileNotFoundError:
            return 0

    def add(
        self,
        name: str,
        now: datetime,
        expires: datetime | None = None,
        scopes: Sequence[str] = SCOPES,
        requests_per_s: float | None = None,
    ) -> str:
        """Return a new key, of which the file contains only the hash.

        Raises ServingError when the name is not valid or in use, or another value is not valid.
        """
        if not NAME.fullmatch(name):
            raise ServingError(f"key {name!r}: a name is 1 to 64 of letters, digits, . - _")
        key = secrets.token_urlsafe(32)
        try:
            made = Key(
                name,
                digest(key),
                utc_text(now),
                None if expires is None else utc_text(expires),
                tuple(scopes),
                requests_per_s,
            )
        except ValueError as error:
            raise ServingError(f"key {name}: {error}") from None
        with self._changing() as keys:
            if any(known.name == name for known in keys):
                raise ServingError(f"key {name}: the name is in use; revoke its keys or choose another name")
            self._write((*keys, made))
        return key

    def rotate(self, name: str, now: datetime, overlap: timedelta) -> str:
        """Return a new key of this name, with the same scopes and quota.

        Older keys of the name are valid for `overlap` longer, so that clients can change to the new key
        without a refused request. Raises ServingError when the name has no valid key.
        """
        key, end = secrets.token_urlsafe(32), now + overlap
        with self._changing() as keys:
            present = [known for known in keys if known.name == name and known.ends > now]
            if not present:
                raise ServingError(f"key {name}: no valid key has this name; add one")
            newest = max(present, key=lambda known: known.created)
            others = [
                replace(known, expires=utc_text(min(end, known.ends))) if known.name == name else known
                for known in keys
                if known.name != name or known.ends > now
            ]
            self._write((*others, replace(newest, sha256=digest(key), created=utc_text(now))))
        return key

    def revoke(self, name: str) -> None:
        """Remove all keys of this name. Raises ServingError when there is none."""
        with self._changing() as keys:
            others = tuple(key for key in keys if key.name != name)
            if others == keys:
                names = ", ".join(key.name for key in keys) or "none"
                raise ServingError(f"key {name}: no key has this name; names of keys: {names}")
            self._write(others)

    @contextmanager
    def _changing(self) -> Iterator[tuple[Key, ...]]:
        """The present keys, under a lock that keeps other processes from changing them."""
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(f"{self._file}.lock"):
            yield self.all()

    def _write(self, keys: Sequence[Key]) -> None:
        text = json.dumps({"keys": [asdict(key) for key in keys]}, indent=2) + "\n"
        replace_privately(self._file, text)


def first_key(keys: Keys, own: Path, now: datetime) -> None:
    """When the list is empty, add a key for this workspace's own client and write it to `own` (mode 600)."""
    if not keys.all():
        replace_privately(own, keys.add(OWN, now) + "\n")


def own_key(own: Path) -> str | None:
    """The key in the file `own`; None when the file is absent. Raises ServingError when it cannot be read."""
    return read_private(own, "API key", ServingError).strip() if own.exists() else None


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def replace_privately(file: Path, text: str) -> None:
    """Replace the content of `file` atomically, with mode 600."""
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

"""API keys of the gateway: 256 random bits each, kept as SHA-256 in a file of mode 600, shown once."""

import hashlib
import json
import math
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from filelock import FileLock

from core.errors import ServingError
from core.private_file import read_private
from data.config import utc_text
from serving.config import GatewayConfig

OWN = "this-workspace"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DIGEST = re.compile(r"[0-9a-f]{64}")
FILTER = Path(__file__).resolve().parents[2] / "configs" / "gateway" / "keys.lua"
NO_ENTRIES = "local ENTRIES = [[]]"
SCOPES = ("predict", "explain", "variant")
"""Scores; reasons and explanations, which cost far more; the choice of who answers, by x-churn-variant."""
COST = 1000
"""Tokens that a request costs a key without a quota of its own."""
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Key:
    """Where a key is rotated, there are two of one name for a while."""

    name: str
    sha256: str
    created: str
    expires: str | None = None
    """The moment from which it is refused."""
    scopes: tuple[str, ...] = SCOPES
    requests_per_s: float | None = None
    """Its own quota; None: `gateway.requests_per_s`."""

    def __post_init__(self) -> None:
        """Raises ValueError with the field's name."""
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

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Self:
        """As the file holds it."""
        return cls(**{**entry, "scopes": tuple(entry.get("scopes", SCOPES))})


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
            return tuple(Key.of(entry) for entry in content["keys"])
        except (ValueError, KeyError, TypeError):
            raise ServingError(f"{self._file}: not our list of keys; remove it, add the keys again") from None

    def changed(self) -> int:
        """Another number after each change of the file, or of who may read it."""
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
        """A new key, which no file holds: show it once. Raises ServingError on a bad or doubled name."""
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
                raise ServingError(f"key {name}: there is one already; revoke it or choose another name")
            self._write((*keys, made))
        return key

    def rotate(self, name: str, now: datetime, overlap: timedelta) -> str:
        """Another key of this name, with the same scopes and quota. The ones before it are good for `overlap`
        more, so that no request is cut while clients change over.

        Raises ServingError when there is none of this name that is still good.
        """
        key, end = secrets.token_urlsafe(32), now + overlap
        with self._changing() as keys:
            present = [known for known in keys if known.name == name and _ends(known) > now]
            if not present:
                raise ServingError(f"key {name}: there is none of this name that is still good; add it")
            newest = max(present, key=lambda known: known.created)
            kept = [
                replace(known, expires=utc_text(min(end, _ends(known)))) if known.name == name else known
                for known in keys
                if known.name != name or _ends(known) > now
            ]
            self._write((*kept, replace(newest, sha256=digest(key), created=utc_text(now))))
        return key

    def revoke(self, name: str) -> None:
        """All keys of this name. Raises ServingError when there is none."""
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


def _ends(key: Key) -> datetime:
    return NEVER if key.expires is None else datetime.fromisoformat(key.expires)


def keys_filter(keys: Iterable[Key], config: GatewayConfig) -> str:
    """The gateway's filter with these keys in it: Lua, in which no key's text is written down, only its hash.

    In the source and not in the route's context, which Envoy copies for every request.
    """
    source = FILTER.read_text(encoding="utf-8")
    assert source.count(NO_ENTRIES) == 1
    lines = "".join(f"{_entry(key, config)}\n" for key in keys)
    return source.replace(NO_ENTRIES, f"local ENTRIES = [[\n{lines}]]")


def _entry(key: Key, config: GatewayConfig) -> str:
    """Hash, name, the second from which it is refused, what a request costs, what it may not do."""
    ends = 0 if key.expires is None else int(_ends(key).timestamp())
    missing = [scope for scope in SCOPES if scope not in key.scopes]
    return " ".join(
        (key.sha256, key.name, str(ends), str(request_cost(key, config)), ",".join(("-", *missing)))
    )


def request_cost(key: Key, config: GatewayConfig) -> int:
    """All buckets are of one size, COST tokens for each request of `gateway.requests_per_s`: a key with half
    of that quota pays twice as much a request, so that its burst is half as large too.
    """
    if key.requests_per_s is None:
        return COST
    cost = round(COST * config.requests_per_s / key.requests_per_s)
    return max(1, min(cost, config.burst * COST))


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
